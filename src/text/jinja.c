/* SPDX-License-Identifier: Apache-2.0
 *
 * A template's life: its text is read into nodes once, and rendered as often as wanted. All that
 * belongs to the template is in its arena.
 */
#include "src/text/jinja_parts.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/utf8.h"

#define CHUNK ((size_t)16 << 10)

void *jinja_alloc(struct jinja *j, size_t bytes)
{
    struct jinja_chunk *c = j->arena;
    size_t need = (bytes + 15) & ~(size_t)15;
    void *p;

    if (!c || c->room - c->used < need) {
        size_t room = need > CHUNK ? need : CHUNK;

        c = tr_alloc(TR_MEM_TEXT, sizeof(*c) + room);
        if (!c)
            return NULL;
        c->before = j->arena;
        c->room = room;
        j->arena = c;
    }
    p = c->v + c->used;
    c->used += need;
    return p;
}

void jinja_close(struct jinja *j)
{
    if (!j)
        return;
    while (j->arena) {
        struct jinja_chunk *c = j->arena;

        j->arena = c->before;
        tr_free(TR_MEM_TEXT, c);
    }
    json_decref(j->literals);
    tr_free(TR_MEM_TEXT, j->token);
    tr_free(TR_MEM_TEXT, j->where);
    tr_free(TR_MEM_TEXT, j);
}

int jinja_open(struct jinja **out, const char *text, size_t bytes, const char *where)
{
    struct jinja *j;
    int r;

    if (bytes > JINJA_SOURCE_MOST)
        return tr_error(-EFBIG, "%s: a template of more than %zu bytes", where, JINJA_SOURCE_MOST);
    if (memchr(text, 0, bytes))
        return tr_error(-EINVAL, "%s: a template with a NUL", where);
    if (tr_utf8_valid(text, bytes) < bytes)
        return tr_error(-EINVAL, "%s: a template that is not UTF-8", where);
    j = tr_alloc(TR_MEM_TEXT, sizeof(*j));
    if (!j)
        return -ENOMEM;
    j->where = tr_strdup(TR_MEM_TEXT, where);
    j->literals = json_array();
    r = j->where && j->literals ? jinja_lex(j, text, bytes) : -ENOMEM;
    if (r == 0)
        r = jinja_parse(j);
    if (r < 0) {
        jinja_close(j);
        return r;
    }
    *out = j;
    return 0;
}

int jinja_uses(const struct jinja *j, const char *name)
{
    for (size_t i = 0; i < j->n_tokens; i++)
        if (j->token[i].kind == TOKEN_NAME && !strcmp(j->token[i].text, name))
            return 1;
    return 0;
}

int jinja_has_generation(const struct jinja *j)
{
    return jinja_uses(j, "generation");
}

void jinja_output_free(struct jinja_output *out)
{
    tok_buf_free(&out->text);
    tr_free(TR_MEM_TEXT, out->spans);
    *out = (struct jinja_output){0};
}
