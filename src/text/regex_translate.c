/* SPDX-License-Identifier: Apache-2.0
 *
 * One walk over an expression. Only what both engines read alike passes unchanged; white space and
 * categories become lists of code points; the rest is refused. The lists matter: PCRE2 counts
 * U+180E as a space, and knows no letter that Unicode got since version 14.
 */
#include "src/text/regex_translate.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/text/unicode.h"

struct walk {
    const char *p, *end;
    struct tok_buf *out;
    int in_class;
};

static const char spaces[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"
                             "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
static const char no_spaces[] =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"
    "\\x{3001}-\\x{10ffff}";

static int refuse(const struct walk *w)
{
    size_t n = (size_t)(w->end - w->p);

    return tr_error(-ENOTSUP, "a regular expression with \"%.*s\" is not supported",
                    (int)(n < 12 ? n : 12), w->p);
}

static int put(struct walk *w, const char *text)
{
    return tok_buf_add(w->out, text, strlen(text));
}

/* Passes n bytes as they are. */
static int pass(struct walk *w, size_t n)
{
    int r = tok_buf_add(w->out, w->p, n);

    w->p += n;
    return r;
}

/* The members of a set; outside of brackets it gets its own, negated where asked. */
static int put_set(struct walk *w, const char *members, int negated)
{
    int r = w->in_class ? 0 : put(w, negated ? "[^" : "[");

    if (r == 0)
        r = put(w, members);
    return r < 0 || w->in_class ? r : put(w, "]");
}

static int put_category(struct walk *w, const char *name, int negated)
{
    char members[4096];
    size_t at = 0;
    uint32_t first, last;
    int n = snprintf(members, sizeof(members), "\\p{%s}", name);

    while (tr_unicode_added(name, &at, &first, &last))
        n += snprintf(members + n, sizeof(members) - (size_t)n, "\\x{%x}-\\x{%x}", first, last);
    return put_set(w, members, negated);
}

/* \p{L}, \P{L}, \p{^L}: the categories whose additions are known. */
static int property(struct walk *w)
{
    static const char *const names[] = {"L", "Lu", "Ll", "Lt", "Lm", "Lo", "M",
                                        "N", "Nd", "Nl", "No", "P",  "S"};
    const char *name = w->p + 3, *close;
    int negated = w->p[1] == 'P';

    if (w->end - w->p < 5 || w->p[2] != '{')
        return refuse(w);
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    close = memchr(name, '}', (size_t)(w->end - name));
    for (size_t i = 0; close && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) != (size_t)(close - name) ||
            strncmp(names[i], name, strlen(names[i])) != 0)
            continue;
        if (negated && w->in_class)
            break;
        w->p = close + 1;
        return put_category(w, names[i], negated);
    }
    return refuse(w);
}

static int is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* \xHH, \x{H...} and \uHHHH are one code point. */
static int code_point(struct walk *w)
{
    const char *p = w->p + 2;
    int braces = p < w->end && *p == '{' && w->p[1] == 'x', n = 0, want = w->p[1] == 'u' ? 4 : 2;
    char text[24];

    p += braces;
    while (p + n < w->end && n < 8 && is_hex(p[n]) && (braces || n < want))
        n++;
    if (braces ? !n || p + n == w->end || p[n] != '}' : n != want)
        return refuse(w);
    snprintf(text, sizeof(text), "\\x{%.*s}", n, p);
    w->p = p + n + braces;
    return put(w, text);
}

static int escape(struct walk *w)
{
    char c = w->p + 1 < w->end ? w->p[1] : 0;

    switch (c) {
    case 's':
    case 'S':
        w->p += 2;
        return w->in_class ? put(w, c == 's' ? spaces : no_spaces) : put_set(w, spaces, c == 'S');
    case 'd':
        w->p += 2;
        return put_category(w, "Nd", 0);
    case 'p':
    case 'P':
        return property(w);
    case 'x':
    case 'u':
        return code_point(w);
    case 'r':
    case 'n':
    case 't':
    case 'f':
        return pass(w, 2);
    default:
        return c && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", c) ? pass(w, 2) : refuse(w);
    }
}

/* What may follow "(?". */
static int group(struct walk *w)
{
    static const char *const kinds[] = {"(?:", "(?i:", "(?i)", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    size_t n = (size_t)(w->end - w->p);

    if (n < 2 || w->p[1] != '?')
        return pass(w, 1);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strlen(kinds[i]) <= n && !strncmp(w->p, kinds[i], strlen(kinds[i])))
            return pass(w, strlen(kinds[i]));
    return refuse(w);
}

/* {n}, {n,} or {n,m}; a "+" behind it means another thing to each engine. */
static int interval(struct walk *w)
{
    const char *p = w->p + 1, *digits = p;

    while (p < w->end && *p >= '0' && *p <= '9')
        p++;
    if (p == digits)
        return refuse(w);
    if (p < w->end && *p == ',')
        p++;
    while (p < w->end && *p >= '0' && *p <= '9')
        p++;
    if (p == w->end || *p != '}' || (p + 1 < w->end && p[1] == '+'))
        return refuse(w);
    return pass(w, (size_t)(p + 1 - w->p));
}

/* Inside of brackets: sets in sets and "&&" are Oniguruma's alone. */
static int member(struct walk *w)
{
    if (*w->p == '\\')
        return escape(w);
    if (*w->p == '[' || (*w->p == '&' && w->p + 1 < w->end && w->p[1] == '&'))
        return refuse(w);
    w->in_class = *w->p != ']';
    return pass(w, 1);
}

static int open_class(struct walk *w)
{
    int r = pass(w, 1);

    if (r == 0 && w->p < w->end && *w->p == '^')
        r = pass(w, 1);
    if (w->p < w->end && *w->p == ']')
        return refuse(w);
    w->in_class = 1;
    return r;
}

static int item(struct walk *w)
{
    switch (*w->p) {
    case '\\':
        return escape(w);
    case '[':
        return open_class(w);
    case '(':
        return group(w);
    case '{':
        return interval(w);
    case '^':
        return refuse(w);
    case '$': /* the end of any line, as in Ruby */
        w->p++;
        return put(w, "(?=\\n|\\z)");
    default:
        return pass(w, 1);
    }
}

int tr_regex_translate(const char *pattern, size_t bytes, struct tok_buf *out)
{
    struct walk w = {pattern, pattern + bytes, out, 0};
    int r = put(&w, "");

    while (r == 0 && w.p < w.end)
        r = w.in_class ? member(&w) : item(&w);
    return r;
}
