/* SPDX-License-Identifier: Apache-2.0
 *
 * A template's text becomes tokens. Whitespace is settled here, as the reference's settings say: a
 * newline behind a block or a comment goes, so do blanks between the start of a line and a block
 * or comment; "-" takes all white space on its side, "+" keeps it. One newline at the very end of
 * the template goes as well.
 */
#include "src/text/jinja_parts.h"

#include <ctype.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

struct lex {
    struct jinja *j;
    const char *s;
    size_t n, at;
    int line;
    int trim;         /* what the last tag asks of the text behind it: 0, '-' or '\n' */
    size_t text_from; /* where the data being read begins */
};

static int bad(const struct lex *l, const char *what)
{
    return tr_error(-EINVAL, "%s:%d: %s", l->j->where, l->line, what);
}

static int push(struct lex *l, enum jinja_token_kind kind, const char *text, size_t bytes)
{
    struct jinja *j = l->j;

    if (j->n_tokens == j->tokens_room) {
        size_t room = j->tokens_room ? j->tokens_room * 2 : 256;
        struct jinja_token *v = tr_realloc(TR_MEM_TEXT, j->token, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        j->token = v;
        j->tokens_room = room;
    }
    j->token[j->n_tokens++] =
        (struct jinja_token){.kind = kind, .line = l->line, .text = text, .bytes = bytes};
    return 0;
}

static int is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f';
}

/* Moves on to `to`, counting lines. */
static void move(struct lex *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->s[l->at] == '\n';
}

/* The text from..to between two tags, cut on both sides as the tags want it. */
static int push_data(struct lex *l, size_t from, size_t to, int block, char sign)
{
    size_t end = to;
    char *copy;

    if (l->trim == '-')
        while (from < end && is_blank(l->s[from]))
            from++;
    else if (l->trim == '\n' && from < end && l->s[from] == '\n')
        from++;
    if (sign == '-') {
        while (end > from && is_blank(l->s[end - 1]))
            end--;
    } else if (block && sign != '+') {
        size_t k = end;

        while (k > from && (l->s[k - 1] == ' ' || l->s[k - 1] == '\t'))
            k--;
        if (k == 0 || l->s[k - 1] == '\n')
            end = k;
    }
    if (end <= from)
        return 0;
    copy = jinja_alloc(l->j, end - from + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, l->s + from, end - from);
    return push(l, TOKEN_DATA, copy, end - from);
}

static int hex_digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : (tolower((unsigned char)c) - 'a') + 10;
}

static size_t put_point(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xC0 | c >> 6);
        to[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xE0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 63));
        to[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    to[0] = (char)(0xF0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 63));
    to[2] = (char)(0x80 | (c >> 6 & 63));
    to[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* The digits of an escape behind its letter: *base is 16, or 8 for those that are digits alone. */
static size_t escape_digits(char letter, uint32_t *base)
{
    *base = letter >= '0' && letter <= '7' ? 8 : 16;
    return *base == 8 ? 3 : letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
}

static int is_digit_of(char c, uint32_t base)
{
    return base == 8 ? c >= '0' && c <= '7' : isxdigit((unsigned char)c) != 0;
}

/* \xNN, \uNNNN, \UNNNNNNNN and \NNN from behind the backslash; 0 where digits are missing, or they
 * name half of a pair, or nothing. */
static size_t unescape_number(const char *s, size_t n, char *to, size_t *wrote)
{
    uint32_t base, c = 0;
    size_t digits = escape_digits(*s, &base), from = base == 16, i = from;

    for (; i < n && i < from + digits && is_digit_of(s[i], base); i++)
        c = c * base + (uint32_t)hex_digit(s[i]);
    if ((base == 16 && i < from + digits) || (c >= 0xD800 && c < 0xE000) || c > 0x10FFFF)
        return 0;
    *wrote = put_point(to, c);
    return i;
}

/* What an escape means, from behind the backslash: the bytes that it takes, 0 where it is broken.
 * One that is not known keeps its backslash. */
static size_t unescape(const char *s, size_t n, char *to, size_t *wrote)
{
    static const char named[] = "n\nt\tr\r\\\\''\"\"b\bf\fv\va\a";
    uint32_t base;

    *wrote = 0;
    if (*s == '\n') /* a line that goes on */
        return 1;
    for (const char *k = named; *k; k += 2)
        if (*k == *s) {
            to[(*wrote)++] = k[1];
            return 1;
        }
    if (escape_digits(*s, &base))
        return unescape_number(s, n, to, wrote);
    if (*s == 'N') /* a character by its name */
        return 0;
    to[(*wrote)++] = '\\';
    to[(*wrote)++] = *s;
    return 1;
}

static int push_string(struct lex *l, size_t from, size_t to)
{
    char *copy = jinja_alloc(l->j, to - from + 1);
    size_t n = 0;

    if (!copy)
        return -ENOMEM;
    for (size_t i = from; i < to;) {
        size_t wrote, used;

        if (l->s[i] != '\\' || i + 1 == to) {
            copy[n++] = l->s[i++];
            continue;
        }
        used = unescape(l->s + i + 1, to - i - 1, copy + n, &wrote);
        if (!used)
            return bad(l, "an escape in a text that names no character, or by its name");
        n += wrote;
        i += 1 + used;
    }
    return push(l, TOKEN_STRING, copy, n);
}

static int read_string(struct lex *l)
{
    char quote = l->s[l->at];
    size_t i = l->at + 1;
    int r;

    while (i < l->n && l->s[i] != quote)
        i += l->s[i] == '\\' ? 2 : 1;
    if (i >= l->n)
        return bad(l, "a string without an end");
    r = push_string(l, l->at + 1, i);
    move(l, i + 1);
    return r;
}

static int push_copy(struct lex *l, enum jinja_token_kind kind, size_t bytes)
{
    char *copy = jinja_alloc(l->j, bytes + 1);
    int r;

    if (!copy)
        return -ENOMEM;
    memcpy(copy, l->s + l->at, bytes);
    r = push(l, kind, copy, bytes);
    move(l, l->at + bytes);
    return r;
}

static int read_number(struct lex *l)
{
    size_t i = l->at;
    int real = 0;

    while (i < l->n && isdigit((unsigned char)l->s[i]))
        i++;
    if (i + 1 < l->n && l->s[i] == '.' && isdigit((unsigned char)l->s[i + 1]))
        for (real = 1, i++; i < l->n && isdigit((unsigned char)l->s[i]);)
            i++;
    if (i + 1 < l->n && (l->s[i] == 'e' || l->s[i] == 'E')) {
        size_t k = i + 1 + (l->s[i + 1] == '-' || l->s[i + 1] == '+');

        if (k < l->n && isdigit((unsigned char)l->s[k]))
            for (real = 1, i = k; i < l->n && isdigit((unsigned char)l->s[i]);)
                i++;
    }
    if (i - l->at > 18)
        return bad(l, "a number of more than 18 digits");
    return push_copy(l, real ? TOKEN_FLOAT : TOKEN_INT, i - l->at);
}

static int read_name(struct lex *l)
{
    size_t i = l->at;

    while (i < l->n && (isalnum((unsigned char)l->s[i]) || l->s[i] == '_'))
        i++;
    return push_copy(l, TOKEN_NAME, i - l->at);
}

static int read_operator(struct lex *l)
{
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    size_t bytes = 1;

    for (size_t i = 0; i < sizeof(two) / sizeof(two[0]); i++)
        if (l->n - l->at >= 2 && !memcmp(l->s + l->at, two[i], 2))
            bytes = 2;
    if (!strchr("+-*/%~<>=!()[]{}.,:|", l->s[l->at]) || (bytes == 1 && l->s[l->at] == '!') ||
        !l->s[l->at])
        return bad(l, "a character that no expression has");
    return push_copy(l, TOKEN_OP, bytes);
}

/* 1 where the tag ends here. A "}}" inside of braces closes those. */
static int at_close(struct lex *l, int block, int braces)
{
    const char *p = l->s + l->at;
    size_t left = l->n - l->at, sign = left && (*p == '-' || (*p == '+' && block));

    if (braces || left < sign + 2 || p[sign] != (block ? '%' : '}') || p[sign + 1] != '}')
        return 0;
    l->trim = sign && *p == '-' ? '-' : block && !sign ? '\n' : 0;
    move(l, l->at + sign + 2);
    return 1;
}

static int read_tag(struct lex *l, int block)
{
    int braces = 0, r = push(l, block ? TOKEN_BLOCK_OPEN : TOKEN_PRINT_OPEN, "", 0);

    while (r == 0) {
        while (l->at < l->n && is_blank(l->s[l->at]))
            move(l, l->at + 1);
        if (l->at >= l->n)
            return bad(l, "a tag without an end");
        if (at_close(l, block, braces))
            return push(l, block ? TOKEN_BLOCK_CLOSE : TOKEN_PRINT_CLOSE, "", 0);
        braces += (l->s[l->at] == '{') - (l->s[l->at] == '}');
        if (l->s[l->at] == '"' || l->s[l->at] == '\'')
            r = read_string(l);
        else if (isdigit((unsigned char)l->s[l->at]))
            r = read_number(l);
        else if (isalpha((unsigned char)l->s[l->at]) || l->s[l->at] == '_')
            r = read_name(l);
        else
            r = read_operator(l);
    }
    return r;
}

static int skip_comment(struct lex *l)
{
    size_t i = l->at;

    while (i + 1 < l->n && !(l->s[i] == '#' && l->s[i + 1] == '}'))
        i++;
    if (i + 1 >= l->n)
        return bad(l, "a comment without an end");
    l->trim = l->s[i - 1] == '-' ? '-' : l->s[i - 1] == '+' ? 0 : '\n';
    move(l, i + 2);
    return 0;
}

static size_t find_tag(const struct lex *l)
{
    size_t i = l->at;

    while (i + 1 < l->n && !(l->s[i] == '{' && strchr("{%#", l->s[i + 1]) && l->s[i + 1]))
        i++;
    return i + 1 < l->n ? i : l->n;
}

/* Lines end in "\n" from here on, whatever they ended in. */
static size_t unify_lines(char *to, const char *text, size_t bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < bytes; i++)
        if (text[i] != '\r')
            to[n++] = text[i];
        else if (i + 1 == bytes || text[i + 1] != '\n')
            to[n++] = '\n';
    return n;
}

int jinja_lex(struct jinja *j, const char *source, size_t bytes)
{
    char *text = jinja_alloc(j, bytes + 1);
    struct lex l = {.j = j, .s = text, .line = 1};
    int r = 0;

    if (!text)
        return -ENOMEM;
    l.n = unify_lines(text, source, bytes);
    if (l.n && text[l.n - 1] == '\n')
        l.n--;
    while (r == 0 && l.at < l.n) {
        size_t tag = find_tag(&l), from = l.at;
        char kind = tag < l.n ? text[tag + 1] : 0, sign = tag + 2 < l.n ? text[tag + 2] : 0;

        sign = tag < l.n && (sign == '-' || sign == '+') ? sign : 0;
        r = push_data(&l, from, tag, kind == '%' || kind == '#', sign);
        l.trim = 0;
        move(&l, tag < l.n ? tag + 2 + (sign != 0) : l.n);
        if (r == 0 && kind)
            r = kind == '#' ? skip_comment(&l) : read_tag(&l, kind == '%');
    }
    return r < 0 ? r : push(&l, TOKEN_END, "", 0);
}
