/* SPDX-License-Identifier: Apache-2.0 */
#include "src/infer/prompts.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/data_file.h"
#include "src/text/tokenizer_utf8.h"

void prompts_free(struct prompts *p)
{
    for (int32_t i = 0; i < p->n; i++) {
        tr_free(TR_MEM_TEXT, p->text[i]);
        tr_ids_free(&p->ids[i]);
    }
    tr_free(TR_MEM_TEXT, p->text);
    tr_free(TR_MEM_TEXT, p->ids);
    tr_free(TR_MEM_TEXT, p->length);
}

static int prompts_room(struct prompts *p)
{
    int32_t room = 2 * p->room + 16;
    char **text = tr_realloc(TR_MEM_TEXT, p->text, (size_t)room * sizeof(*text));
    struct tr_ids *ids;
    size_t *length;

    p->text = text ? text : p->text;
    ids = text ? tr_realloc(TR_MEM_TEXT, p->ids, (size_t)room * sizeof(*ids)) : NULL;
    p->ids = ids ? ids : p->ids;
    length = ids ? tr_realloc(TR_MEM_TEXT, p->length, (size_t)room * sizeof(*length)) : NULL;
    p->length = length ? length : p->length;
    p->room = length ? room : p->room;
    return length ? 0 : -ENOMEM;
}

int prompts_add(struct prompts *p, const char *text, size_t n)
{
    if (p->n == INT32_MAX / 4)
        return tr_error(-E2BIG, "too many prompts");
    if (p->n == p->room && prompts_room(p) < 0)
        return -ENOMEM;
    memset(&p->ids[p->n], 0, sizeof(*p->ids));
    p->text[p->n] = tr_alloc(TR_MEM_TEXT, n + 1);
    if (!p->text[p->n])
        return -ENOMEM;
    memcpy(p->text[p->n++], text, n);
    return 0;
}

static const char *past_blanks(const char *line, const char *end)
{
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    return line;
}

/* A line is a prompt, or an object that has one. */
static int add_line(struct prompts *p, const char *line, size_t n, const char *where)
{
    const char *text, *from = past_blanks(line, line + n);
    json_t *json;
    int r;

    if (tr_utf8_valid(line, n) < n)
        return tr_error(-EINVAL, "%s: is not UTF-8", where);
    if (from == line + n || *from != '{')
        return prompts_add(p, line, n);
    if ((r = tr_json_parse(from, (size_t)(line + n - from), where, &json)) < 0)
        return r;
    text = json_string_value(json_object_get(json, "prompt"));
    r = text ? prompts_add(p, text, strlen(text))
             : tr_error(-EINVAL, "%s: has no text \"prompt\"", where);
    json_decref(json);
    return r;
}

int prompts_read(struct prompts *p, const char *path)
{
    struct data_file f;
    const char *line;
    size_t n;
    int r = data_file_open(&f, path);

    if (r < 0)
        return r;
    while ((r = data_file_line(&f, &line, &n)) > 0) {
        char where[4200];

        n -= n && line[n - 1] == '\r';
        snprintf(where, sizeof(where), "%s:%llu", path, (unsigned long long)f.line);
        r = !n                   ? 0
            : memchr(line, 0, n) ? tr_error(-EINVAL, "%s: has a NUL character", where)
                                 : add_line(p, line, n, where);
        if (r < 0)
            break;
    }
    data_file_close(&f);
    return r < 0 || p->n ? r : tr_error(-ENODATA, "%s: no prompts", path);
}
