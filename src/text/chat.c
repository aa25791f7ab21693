/* SPDX-License-Identifier: Apache-2.0
 *
 * Which template: the one that is named, else chat_template.jinja beside the tokenizer, else
 * chat_template of tokenizer_config.json (a text, or a list of which the one named "default" is
 * taken). The variables are those of the reference: messages, tools, add_generation_prompt, and
 * the special tokens by their names.
 */
#include "src/text/chat.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"

#define CONFIG_MOST ((size_t)16 << 20)

void chat_close(struct chat *c)
{
    jinja_close(c->template);
    json_decref(c->tokens);
    tr_free(TR_MEM_TEXT, c->from);
    *c = (struct chat){0};
}

static int open_text(struct chat *c, const char *text, size_t bytes, const char *from)
{
    c->from = tr_strdup(TR_MEM_TEXT, from);
    return c->from ? jinja_open(&c->template, text, bytes, from) : -ENOMEM;
}

static int open_file(struct chat *c, const char *path)
{
    char *text = NULL;
    size_t bytes;
    int r = tr_file_read(path, JINJA_SOURCE_MOST, &text, &bytes);

    if (r == 0)
        r = open_text(c, text, bytes, path);
    tr_free(TR_MEM_TEXT, text);
    return r;
}

/* Numbers are read as reals, as the tokenizer's reader does: model_max_length is often 1e30. */
static int read_config(const char *folder, json_t **out)
{
    char path[4200], *text = NULL;
    json_error_t e;
    size_t bytes;
    int r;

    if (!folder || !tr_folder_has(folder, "tokenizer_config.json"))
        return 0;
    snprintf(path, sizeof(path), "%s/tokenizer_config.json", folder);
    r = tr_file_read(path, CONFIG_MOST, &text, &bytes);
    if (r == 0) {
        *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e);
        r = *out ? 0 : tr_error(-EINVAL, "%s:%d: not valid JSON: %s", path, e.line, e.text);
    }
    tr_free(TR_MEM_TEXT, text);
    return r;
}

static const char *named_template(const json_t *list)
{
    const char *found = NULL;
    json_t *v;
    size_t i;

    json_array_foreach(list, i, v)
    {
        const char *name = json_string_value(json_object_get(v, "name"));
        const char *text = json_string_value(json_object_get(v, "template"));

        if (name && text && (!strcmp(name, "default") || json_array_size(list) == 1))
            found = text;
    }
    return found;
}

static int open_folder(struct chat *c, const struct chat_params *p, const json_t *config)
{
    json_t *v = json_object_get(config, "chat_template");
    const char *text = json_is_array(v) ? named_template(v) : json_string_value(v);
    char where[4200];

    if (p->folder && tr_folder_has(p->folder, "chat_template.jinja")) {
        snprintf(where, sizeof(where), "%s/chat_template.jinja", p->folder);
        return open_file(c, where);
    }
    if (!text)
        return tr_error(-ENOENT, "%s: has no chat template; give --template, one of %s or a file",
                        p->folder ? p->folder : "the tokenizer", chat_builtin_names());
    snprintf(where, sizeof(where), "%s/tokenizer_config.json: chat_template", p->folder);
    return open_text(c, text, strlen(text), where);
}

static int open_named(struct chat *c, const char *name)
{
    const char *text = chat_builtin(name);

    if (text)
        return open_text(c, text, strlen(text), name);
    if (!strchr(name, '/') && !strchr(name, '.'))
        return tr_error(-EINVAL, "template \"%s\" is not known: give one of %s, or a file", name,
                        chat_builtin_names());
    return open_file(c, name);
}

static void add_token(struct chat *c, const json_t *config, const char *key, const char *piece)
{
    json_t *v = json_object_get(config, key);

    if (json_is_object(v))
        v = json_object_get(v, "content");
    if (json_is_string(v))
        json_object_set(c->tokens, key, v);
    else if (piece)
        json_object_set_new(c->tokens, key, json_string(piece));
}

static const char *piece_of(const struct tr_tokenizer *t, int32_t id)
{
    return t && id >= 0 ? tr_tokenizer_piece(t, id) : NULL;
}

static int add_tokens(struct chat *c, const struct chat_params *p, const json_t *config)
{
    const struct tr_tokenizer *t = p->tokenizer;

    c->tokens = json_object();
    if (!c->tokens)
        return -ENOMEM;
    add_token(c, config, "bos_token", piece_of(t, t ? tr_tokenizer_bos(t) : -1));
    add_token(c, config, "eos_token", piece_of(t, t ? tr_tokenizer_eos(t) : -1));
    add_token(c, config, "pad_token", NULL);
    add_token(c, config, "unk_token", NULL);
    return 0;
}

int chat_open(struct chat *c, const struct chat_params *p)
{
    json_t *config = NULL;
    int r = read_config(p->folder, &config);

    *c = (struct chat){0};
    if (r == 0)
        r = add_tokens(c, p, config);
    if (r == 0)
        r = p->name ? open_named(c, p->name) : open_folder(c, p, config);
    json_decref(config);
    if (r < 0)
        chat_close(c);
    return r;
}

/* A content of null is for a template that asks whether it is one. In another's text it would be
 * the word "None", which nobody has said. */
static json_t *message_for(const struct chat *c, json_t *m)
{
    if (!json_is_null(json_object_get(m, "content")) || jinja_uses(c->template, "none") ||
        jinja_uses(c->template, "None"))
        return json_incref(m);
    m = json_copy(m);
    json_object_del(m, "content");
    return m;
}

int chat_render(const struct chat *c, const struct chat_conversation *of, size_t n, int prompt,
                struct jinja_output *out)
{
    json_t *variables = json_copy(c->tokens), *messages = json_array();
    int r = variables && messages ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = json_array_append_new(messages, message_for(c, json_array_get(of->messages, i)));
    if (r == 0)
        r = json_object_set(variables, "messages", messages);
    if (r == 0)
        r = json_object_set_new(variables, "add_generation_prompt", json_boolean(prompt));
    if (r == 0 && of->tools)
        r = json_object_set(variables, "tools", of->tools);
    else if (r == 0) /* the reference passes both on in every case */
        r = json_object_set_new(variables, "tools", json_null());
    if (r == 0)
        r = json_object_set_new(variables, "documents", json_null());
    *out = (struct jinja_output){0};
    r = r < 0 ? tr_error(-ENOMEM, "out of memory")
              : jinja_render(c->template,
                             &(struct jinja_input){.variables = variables, .messages = messages},
                             out);
    if (r < 0)
        jinja_output_free(out);
    json_decref(messages);
    json_decref(variables);
    return r;
}
