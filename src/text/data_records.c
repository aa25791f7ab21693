/* SPDX-License-Identifier: Apache-2.0
 *
 * The records of a file: one JSON object a line, or one list of objects. Which of the two is seen
 * from the first byte. Every message about a record names file and line.
 *
 * A file has records where its name says so, and where its first line is an object or it begins as
 * a list of objects: learnt as text, it would teach the syntax of JSON. A pipe has no name to go
 * by.
 */
#include "src/text/data_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/text/buf.h"

#define LOOK ((size_t)1 << 20) /* bytes that show whether a file is text */

static int is_named_so(const char *path)
{
    return tr_ends_in(path, (const char *const[]){".jsonl", ".ndjson", ".json", NULL});
}

/* Learnt as text, a table would teach its commas. */
static int is_table(const char *path)
{
    return tr_ends_in(path, (const char *const[]){".csv", ".tsv", ".parquet", ".arrow", NULL});
}

/* A text has no NUL: UTF-16, weights and archives nearly always have one near their beginning. */
static int check_text(struct data_file *f)
{
    static const struct {
        const char *magic, *what;
    } packed[] = {{"\x1F\x8B", "gzip"}, {"\x28\xB5\x2F\xFD", "zstd"}};
    int r = data_file_byte(f, LOOK - 1);
    size_t n = f->n - f->at;
    const char *nul;

    if (r < 0 || !n)
        return r < 0 ? r : 0;
    for (size_t i = 0; i < sizeof(packed) / sizeof(packed[0]); i++) {
        size_t k = strlen(packed[i].magic);

        if (n > k && !memcmp(f->v + f->at, packed[i].magic, k))
            return tr_error(-EINVAL, "%s: is not text but packed with %s: unpack it first", f->path,
                            packed[i].what);
    }
    nul = memchr(f->v + f->at, 0, n);
    return nul ? tr_error(-EINVAL,
                          "%s: is not text: byte %zu is NUL; data is UTF-8 text or JSON records",
                          f->path, (size_t)(nul - f->v) - f->at)
               : 0;
}

/* The bytes from `from` to the end of the line; 0 where it is too long for a record. */
static int64_t line_bytes(struct data_file *f, size_t from)
{
    int64_t n = 0;
    int b;

    while ((b = data_file_byte(f, from + (size_t)n)) > 0 && b != '\n')
        if ((size_t)++n > DATA_LINE_MOST)
            return 0;
    return b < 0 ? b : n;
}

/* What a record must not have (a key twice) is for its reader to name. */
static int is_object(const char *text, size_t bytes)
{
    json_error_t e;
    json_t *v = json_loadb(text, bytes, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &e);
    int is = json_is_object(v);

    json_decref(v);
    return is;
}

int data_file_has_records(struct data_file *f)
{
    size_t at = 0;
    int64_t n;
    int r, list;

    if (is_named_so(f->path))
        return 1;
    if (is_table(f->path))
        return tr_error(-EINVAL,
                        "%s: tables are not read: make JSON records of it, a line each (or give "
                        "it another name, to learn it as text)",
                        f->path);
    r = check_text(f);
    if (r < 0)
        return r;
    list = data_file_skip(f, &at) == '[';
    at += (size_t)list;
    r = data_file_skip(f, &at);
    if (r != '{')
        return r < 0 ? r : 0;
    n = list ? data_file_value(f, at) : line_bytes(f, at);
    return n > 0 && is_object(f->v + f->at + at, (size_t)n);
}

/* The bytes of the number at text[0..n). */
static size_t number_bytes(const char *text, size_t n)
{
    size_t k = 0;

    while (k < n && text[k] && strchr("+-.0123456789eE", text[k]))
        k++;
    return k;
}

/* 1 for a whole number, as written, that no 64 bits hold. */
static int is_too_long(const char *text, size_t n)
{
    char copy[32];

    for (size_t i = 0; i < n; i++)
        if (strchr(".eE", text[i]))
            return 0;
    if (n >= sizeof(copy))
        return 1;
    memcpy(copy, text, n);
    copy[n] = 0;
    errno = 0;
    strtoll(copy, NULL, 10);
    return errno == ERANGE;
}

/* The text with ".0" behind each such number that is in no string. *n counts them. */
static int make_real(const char *text, size_t bytes, struct tok_buf *out, size_t *n)
{
    size_t from = 0, k;
    int quoted = 0, r = 0;

    for (size_t at = 0; at < bytes && r == 0; at += k) {
        int number = !quoted && (text[at] == '-' || (text[at] >= '0' && text[at] <= '9'));

        k = number ? number_bytes(text + at, bytes - at) : 1 + (size_t)(quoted && text[at] == '\\');
        quoted ^= text[at] == '"';
        if (!number || !is_too_long(text + at, k))
            continue;
        ++*n;
        r = tok_buf_add(out, text + from, at + k - from);
        if (r == 0)
            r = tok_buf_add(out, ".0", 2);
        from = at + k;
    }
    return r < 0 || !*n ? r : tok_buf_add(out, text + from, bytes - from);
}

/* A number beyond 64 bits, as hashes and ids of rows are, hinders nothing that reads other keys: it
 * becomes a real, and it alone. */
static int parse(const char *text, size_t bytes, const char *where, json_t **o)
{
    int r = tr_json_parse_nul(text, bytes, where, o), made;
    struct tok_buf real = {0};
    size_t n = 0;

    if (r != -EINVAL)
        return r;
    made = make_real(text, bytes, &real, &n);
    if (made < 0)
        r = tr_error(made, "%s: out of memory", where);
    else if (n)
        r = tr_json_parse_nul(real.v, real.n, where, o);
    tok_buf_free(&real);
    return r;
}

static int take(const struct data_file *f, const char *text, size_t bytes, data_record_fn *fn,
                void *owner)
{
    char where[4200];
    json_t *o;
    int r;

    snprintf(where, sizeof(where), "%s:%llu", f->path, (unsigned long long)f->line);
    r = parse(text, bytes, where, &o);
    if (r < 0)
        return r;
    r = json_is_object(o) ? fn(owner, where, o) : tr_error(-EINVAL, "%s: not a JSON object", where);
    json_decref(o);
    return r;
}

/* A list is all of its file: two of them in one, of which the first was read, would lose data. */
static int check_end(struct data_file *f)
{
    int b;

    for (f->at++; (b = data_file_byte(f, 0)) > 0 && strchr(" \t\r\n", b); f->at++)
        f->line += b == '\n';
    if (b == 0 && f->n == f->at)
        return 0;
    return b < 0 ? b
                 : tr_error(-EINVAL, "%s:%llu: text behind the end of the list", f->path,
                            (unsigned long long)f->line);
}

static int read_list(struct data_file *f, data_record_fn *fn, void *owner)
{
    const char *text;
    size_t bytes;
    int r;

    while ((r = data_file_element(f, &text, &bytes)) > 0) {
        uint64_t lines = 0;

        for (size_t i = 0; i < bytes; i++)
            lines += text[i] == '\n';
        r = take(f, text, bytes, fn, owner);
        if (r != 0)
            break;
        f->line += lines;
    }
    return r ? r : check_end(f);
}

static int read_lines(struct data_file *f, data_record_fn *fn, void *owner)
{
    const char *line;
    size_t bytes;
    int r;

    while ((r = data_file_line(f, &line, &bytes)) > 0) {
        size_t blank = 0;

        while (blank < bytes && strchr(" \t\r", line[blank]))
            blank++;
        if (blank == bytes)
            continue;
        r = take(f, line + blank, bytes - blank, fn, owner);
        if (r != 0)
            break;
    }
    return r;
}

int data_file_each(struct data_file *f, data_record_fn *fn, void *owner)
{
    int r;

    f->line = 1;
    r = data_file_begins(f, '[');
    if (r == 0)
        f->line = 0;
    if (r >= 0)
        r = r ? read_list(f, fn, owner) : read_lines(f, fn, owner);
    return r < 0 ? r : 0;
}

int data_file_records(const char *path, data_record_fn *fn, void *owner)
{
    struct data_file f;
    int r = data_file_open(&f, path);

    if (r < 0)
        return r;
    r = data_file_each(&f, fn, owner);
    data_file_close(&f);
    return r;
}
