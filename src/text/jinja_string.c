/* SPDX-License-Identifier: Apache-2.0
 *
 * Texts by code points: lengths, white space, case, search. jansson has checked that they are
 * UTF-8.
 */
#include "src/text/jinja_parts.h"

#include <string.h>
#include <utf8proc.h>

#include "src/base/err.h"

size_t jinja_points(const char *s, size_t bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < bytes; i++)
        n += (s[i] & 0xC0) != 0x80;
    return n;
}

size_t jinja_offset(const char *s, size_t bytes, size_t at)
{
    size_t i = 0;

    for (; at && i < bytes; at--)
        do
            i++;
        while (i < bytes && (s[i] & 0xC0) == 0x80);
    return i;
}

static int32_t point(const char *s, size_t bytes, size_t *used)
{
    utf8proc_int32_t c = 0;
    utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)bytes, &c);

    *used = k > 0 ? (size_t)k : 1;
    return k > 0 ? c : 0xFFFD;
}

static int is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static int is_stripped(struct jinja_eval *e, const char *s, size_t used, int32_t c, json_t *chars)
{
    if (chars && jinja_look(e, json_string_length(chars)) < 0)
        return 0;
    return chars ? memmem(json_string_value(chars), json_string_length(chars), s, used) != NULL
                 : is_space(c);
}

struct jinja_value jinja_strip(struct jinja_eval *e, json_t *s, enum jinja_side side,
                               struct jinja_value chars)
{
    const char *v = json_string_value(s);
    size_t from = 0, to = json_string_length(s), used, k;
    json_t *set = chars.kind == VALUE_JSON && json_is_string(chars.json) ? chars.json : NULL;
    int32_t c;

    while (side & SIDE_LEFT && from < to) {
        c = point(v + from, to - from, &used);
        if (!is_stripped(e, v + from, used, c, set))
            break;
        from += used;
    }
    while (side & SIDE_RIGHT && from < to) {
        for (k = to - 1; k > from && (v[k] & 0xC0) == 0x80;)
            k--;
        c = point(v + k, to - k, &used);
        if (!is_stripped(e, v + k, used, c, set))
            break;
        to = k;
    }
    jinja_look(e, json_string_length(s) - (to - from));
    return jinja_text(e, v + from, to - from);
}

/* Where the filter `title` begins a word: behind one of these, not behind any sign. */
static int is_word_break(int32_t c)
{
    return is_space(c) || (c > 0 && c < 128 && strchr("-({[<", c) != NULL);
}

/* One code point to one, and "ß", which becomes two; the rest of those that grow are rare. */
struct jinja_value jinja_recase(struct jinja_eval *e, json_t *s, enum jinja_case to)
{
    const char *v = json_string_value(s);
    size_t n = json_string_length(s), used;
    struct tok_buf b = {0};
    int inside = 0;

    for (size_t i = 0; i < n && e->r == 0; i += used) {
        int32_t c = point(v + i, n - i, &used);
        int letter = utf8proc_tolower(c) != c || utf8proc_toupper(c) != c;
        int upper = to == CASE_UPPER || (to == CASE_CAPITAL && !i) ||
                    ((to == CASE_TITLE || to == CASE_WORDS) && !inside);
        utf8proc_uint8_t out[4];
        utf8proc_ssize_t k =
            utf8proc_encode_char(upper ? utf8proc_toupper(c) : utf8proc_tolower(c), out);

        if (c == 0xDF && upper)
            jinja_add(e, &b, to == CASE_UPPER || to == CASE_WORDS ? "SS" : "Ss", 2);
        else
            jinja_add(e, &b, (const char *)out, (size_t)k);
        inside = to == CASE_WORDS ? !is_word_break(c) : letter;
    }
    return jinja_take(e, &b);
}

struct jinja_value jinja_replace(struct jinja_eval *e, json_t *s, json_t *from, json_t *to,
                                 int64_t most)
{
    const char *v = json_string_value(s), *end = v + json_string_length(s), *p;
    size_t k = json_string_length(from);
    struct tok_buf b = {0};

    if (!k || jinja_look(e, (size_t)(end - v)) < 0)
        return jinja_fail(e, -ENOTSUP, "replace of an empty text");
    while (most-- && e->r == 0 &&
           (p = memmem(v, (size_t)(end - v), json_string_value(from), k)) != NULL) {
        jinja_add(e, &b, v, (size_t)(p - v));
        jinja_add(e, &b, json_string_value(to), json_string_length(to));
        v = p + k;
    }
    jinja_add(e, &b, v, (size_t)(end - v));
    return jinja_take(e, &b);
}

/* By runs of white space, none at the sides. */
static void split_words(struct jinja_eval *e, json_t *list, json_t *s, int64_t most)
{
    const char *v = json_string_value(s);
    size_t n = json_string_length(s), i = 0, used, from;

    jinja_look(e, n);
    for (;;) {
        while (i < n && is_space(point(v + i, n - i, &used)))
            i += used;
        if (i >= n || e->r < 0)
            return;
        if (most-- == 0) {
            jinja_append(e, list, jinja_text(e, v + i, n - i));
            return;
        }
        for (from = i; i < n && !is_space(point(v + i, n - i, &used));)
            i += used;
        jinja_append(e, list, jinja_text(e, v + from, i - from));
    }
}

struct jinja_value jinja_split(struct jinja_eval *e, json_t *s, struct jinja_value separator,
                               int64_t most)
{
    struct jinja_value list = jinja_keep(e, json_array());
    const char *v = json_string_value(s), *end = v + json_string_length(s), *p;
    size_t k;

    if (e->r < 0)
        return list;
    if (separator.kind != VALUE_JSON || !json_is_string(separator.json)) {
        split_words(e, list.json, s, most);
        return list;
    }
    k = json_string_length(separator.json);
    if (!k || jinja_look(e, (size_t)(end - v)) < 0)
        return jinja_fail(e, -EINVAL, "split by an empty text");
    while (most-- && e->r == 0 &&
           (p = memmem(v, (size_t)(end - v), json_string_value(separator.json), k)) != NULL) {
        jinja_append(e, list.json, jinja_text(e, v, (size_t)(p - v)));
        v = p + k;
    }
    jinja_append(e, list.json, jinja_text(e, v, (size_t)(end - v)));
    return list;
}
