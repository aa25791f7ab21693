/* SPDX-License-Identifier: Apache-2.0
 *
 * The window is one buffer. What is consumed is left in front until room is needed; then the rest
 * is moved down once. The buffer doubles when a line or a part does not fit, so that a line of n
 * bytes costs n steps.
 */
#include "src/text/data_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#define BLOCK ((size_t)1 << 20)

int data_file_open(struct data_file *f, const char *path)
{
    struct stat st;

    *f = (struct data_file){.path = path};
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0)
        return tr_error(-errno, "%s: cannot open the data: %s", path, strerror(errno));
    if (fstat(f->fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode)))
        return 0;
    close(f->fd);
    f->fd = -1;
    return tr_error(-EINVAL, "%s: is a %s, data is one text or JSONL file", path,
                    S_ISDIR(st.st_mode) ? "folder" : "device");
}

void data_file_close(struct data_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    tr_free(TR_MEM_TEXT, f->v);
    *f = (struct data_file){.fd = -1};
}

static int make_room(struct data_file *f)
{
    size_t room;
    char *v;

    if (f->at) {
        memmove(f->v, f->v + f->at, f->n - f->at);
        f->n -= f->at;
        f->at = 0;
    }
    if (f->room - f->n >= BLOCK)
        return 0;
    room = f->n + (f->n > BLOCK ? f->n : BLOCK);
    v = tr_realloc(TR_MEM_TEXT, f->v, room);
    if (!v)
        return -ENOMEM;
    f->v = v;
    f->room = room;
    return 0;
}

int data_file_more(struct data_file *f)
{
    int r = make_room(f);
    ssize_t k;

    if (r < 0)
        return r;
    do
        k = read(f->fd, f->v + f->n, f->room - f->n);
    while (k < 0 && errno == EINTR);
    if (k < 0)
        return tr_error(-errno, "%s: cannot read: %s", f->path, strerror(errno));
    f->n += (size_t)k;
    return k > 0;
}

/* Bytes of a byte-order mark, with which only a file begins. */
static int mark_bytes(struct data_file *f)
{
    int r = data_file_byte(f, 2);

    return r < 0 ? r : f->n - f->at >= 3 && !memcmp(f->v + f->at, "\xEF\xBB\xBF", 3) ? 3 : 0;
}

/* The newline stays in the window: whether there is one is not known for a last line. */
static int give(struct data_file *f, size_t bytes, const char **line, size_t *n)
{
    *line = f->v + f->at;
    *n = bytes;
    f->at += bytes;
    f->line++;
    return 1;
}

/* Only bytes that have not been looked at are searched for the newline. */
int data_file_line(struct data_file *f, const char **line, size_t *bytes)
{
    size_t seen = 0;
    int r = f->line ? 0 : mark_bytes(f);

    if (r < 0)
        return r;
    f->at += (size_t)r;
    if (f->line && f->at < f->n && f->v[f->at] == '\n')
        f->at++; /* the newline of the line given out last */
    for (;;) {
        size_t left = f->n - f->at - seen;
        const char *end = left ? memchr(f->v + f->at + seen, '\n', left) : NULL;

        if (end)
            return give(f, (size_t)(end - f->v) - f->at, line, bytes);
        seen = f->n - f->at;
        if (seen > DATA_LINE_MOST)
            return tr_error(-EFBIG, "%s:%llu: a line of more than %zu MiB", f->path,
                            (unsigned long long)f->line + 1, DATA_LINE_MOST >> 20);
        r = data_file_more(f);
        if (r < 0)
            return r;
        if (r == 0)
            return f->at < f->n ? give(f, f->n - f->at, line, bytes) : 0;
    }
}

int data_file_find(const char *path, int held_out, char **out)
{
    static const char *const learnt[] = {"train", NULL};
    static const char *const held[] = {"valid", "validation", "val", "dev", "test", NULL};
    static const char *const endings[] = {"jsonl", "json", "ndjson", "txt"};
    struct stat st;

    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        *out = tr_strdup(TR_MEM_TEXT, path);
        return *out ? 0 : -ENOMEM;
    }
    for (const char *const *name = held_out ? held : learnt; *name; name++)
        for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
            char file[64];

            snprintf(file, sizeof(file), "%s.%s", *name, endings[i]);
            if (!tr_folder_has(path, file))
                continue;
            *out = tr_alloc(TR_MEM_TEXT, strlen(path) + sizeof(file) + 2);
            if (!*out)
                return -ENOMEM;
            sprintf(*out, "%s/%s", path, file);
            return 0;
        }
    return tr_error(-ENOENT, "%s: is a folder without %s", path,
                    held_out ? "valid.jsonl (or .json, .txt)" : "train.jsonl (or .json, .txt)");
}

int data_file_byte(struct data_file *f, size_t at)
{
    int r = 1;

    while (r > 0 && f->n - f->at <= at)
        r = data_file_more(f);
    return r < 0 ? r : r ? (unsigned char)f->v[f->at + at] : 0;
}

int data_file_skip(struct data_file *f, size_t *at)
{
    int b = *at ? 0 : mark_bytes(f);

    if (b < 0)
        return b;
    *at += (size_t)b;
    while ((b = data_file_byte(f, *at)) > 0 && strchr(" \t\r\n", b))
        ++*at;
    return b;
}

int data_file_begins(struct data_file *f, char c)
{
    size_t at = 0;
    int b = data_file_skip(f, &at);

    if (b != (unsigned char)c)
        return b < 0 ? b : 0;
    for (size_t i = 0; i < at; i++)
        f->line += f->v[f->at + i] == '\n';
    f->at += at + 1;
    return 1;
}

/* Only brackets and quotes are looked at; the reader of the value sees the rest. */
int64_t data_file_value(struct data_file *f, size_t from)
{
    int depth = 0, quoted = 0, b;

    for (size_t at = from;; at++) {
        b = data_file_byte(f, at);
        if (b < 0)
            return b;
        if (!b || at - from > DATA_LINE_MOST)
            return tr_error(-EINVAL,
                            "%s:%llu: the list does not end, or a record has more than "
                            "%zu MiB",
                            f->path, (unsigned long long)f->line, DATA_LINE_MOST >> 20);
        if (quoted) {
            at += b == '\\';
            quoted = b != '"';
        } else if (b == '"') {
            quoted = 1;
        } else if (depth == 0 && (b == ',' || b == ']')) {
            return (int64_t)(at - from);
        } else {
            depth += (b == '{' || b == '[') - (b == '}' || b == ']');
        }
    }
}

int data_file_element(struct data_file *f, const char **text, size_t *bytes)
{
    int64_t n;
    int b;

    while ((b = data_file_byte(f, 0)) > 0 && strchr(" \t\r\n,", b)) {
        f->line += b == '\n';
        f->at++;
    }
    if (b < 0)
        return b;
    if (b == ']')
        return 0;
    n = data_file_value(f, 0);
    if (n < 0)
        return (int)n;
    *text = f->v + f->at;
    *bytes = (size_t)n;
    f->at += (size_t)n;
    return 1;
}
