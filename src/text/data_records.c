/* SPDX-License-Identifier: Apache-2.0
 *
 * The records of a file: one JSON object a line, or one list of objects. Which of the two is seen
 * from the first byte. Every message about a record names file and line.
 */
#include "src/text/data_file.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"

static int take(const struct data_file *f, const char *text, size_t bytes, data_record_fn *fn,
                void *owner)
{
    char where[4200];
    json_t *o;
    int r;

    snprintf(where, sizeof(where), "%s:%llu", f->path, (unsigned long long)f->line);
    r = tr_json_parse(text, bytes, where, &o);
    if (r < 0)
        return r;
    r = json_is_object(o) ? fn(owner, where, o) : tr_error(-EINVAL, "%s: not a JSON object", where);
    json_decref(o);
    return r;
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
    return r;
}

static int read_lines(struct data_file *f, data_record_fn *fn, void *owner)
{
    const char *line;
    size_t bytes;
    int r;

    while ((r = data_file_line(f, &line, &bytes)) > 0) {
        size_t blank = 0;

        if (f->line == 1 && bytes >= 3 && !memcmp(line, "\xEF\xBB\xBF", 3))
            blank = 3;
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

int data_file_records(const char *path, data_record_fn *fn, void *owner)
{
    struct data_file f;
    int r = data_file_open(&f, path);

    if (r < 0)
        return r;
    f.line = 1;
    r = data_file_begins(&f, '[');
    if (r == 0)
        f.line = 0;
    if (r >= 0)
        r = r ? read_list(&f, fn, owner) : read_lines(&f, fn, owner);
    data_file_close(&f);
    return r < 0 ? r : 0;
}
