/* SPDX-License-Identifier: Apache-2.0
 *
 * Which template: the one that is named, else chat_template.jinja beside the tokenizer, else
 * chat_template of tokenizer_config.json (a text, or a list of which the one named "default" is
 * taken). A folder may have another one for conversations with tools: "tool_use" of that list, or
 * additional_chat_templates/tool_use.jinja. The variables are those of the reference: messages,
 * tools, add_generation_prompt, and the special tokens by their names; and added_bos, which is
 * bos_token where the tokenizer puts it before a text.
 */
#include "src/text/chat.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define CONFIG_MOST ((size_t)16 << 20)

void chat_close(struct chat *c)
{
    jinja_close(c->template);
    jinja_close(c->tool_use);
    tr_free(TR_MEM_TEXT, c->bad_tool_use);
    json_decref(c->tokens);
    tr_free(TR_MEM_TEXT, c->from);
    *c = (struct chat){0};
}

static int open_file(struct jinja **out, const char *path)
{
    char *text = NULL;
    size_t bytes;
    int r = tr_file_read(path, JINJA_SOURCE_MOST, &text, &bytes);

    if (r == 0)
        r = jinja_open(out, text, bytes, path);
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

static const char *listed_template(const json_t *list, const char *name)
{
    const char *found = NULL;
    json_t *v;
    size_t i;

    json_array_foreach(list, i, v) {
        const char *is = json_string_value(json_object_get(v, "name"));
        const char *text = json_string_value(json_object_get(v, "template"));

        if (is && text && !strcmp(is, name))
            found = text;
    }
    return found;
}

/* A list of one has no other, whatever it is called. */
static const char *default_template(const json_t *v)
{
    const char *text = json_is_array(v) ? listed_template(v, "default") : json_string_value(v);

    return text || json_array_size(v) != 1
               ? text
               : json_string_value(json_object_get(json_array_get(v, 0), "template"));
}

static int read_tool_use(struct chat *c, const struct chat_params *p, const json_t *list)
{
    static const char file[] = "additional_chat_templates/tool_use.jinja";
    const char *text = listed_template(list, "tool_use");
    char where[4200];

    if (p->folder && tr_folder_has(p->folder, file)) {
        snprintf(where, sizeof(where), "%s/%s", p->folder, file);
        return open_file(&c->tool_use, where);
    }
    if (!text)
        return 0;
    snprintf(where, sizeof(where), "%s/tokenizer_config.json: tool_use", p->folder);
    return jinja_open(&c->tool_use, text, strlen(text), where);
}

static int remember(struct chat *c, const char *from)
{
    c->from = tr_strdup(TR_MEM_TEXT, from);
    return c->from ? 0 : -ENOMEM;
}

static int open_folder(struct chat *c, const struct chat_params *p, const json_t *config)
{
    json_t *v = json_object_get(config, "chat_template");
    const char *text = default_template(v);
    char where[4200];
    int r;

    if (p->folder && tr_folder_has(p->folder, "chat_template.jinja")) {
        snprintf(where, sizeof(where), "%s/chat_template.jinja", p->folder);
        r = open_file(&c->template, where);
    } else if (text) {
        snprintf(where, sizeof(where), "%s/tokenizer_config.json: chat_template", p->folder);
        r = jinja_open(&c->template, text, strlen(text), where);
    } else {
        return tr_error(-ENOENT, "%s: has no chat template; give --template, one of %s or a file",
                        p->folder ? p->folder : "the tokenizer", chat_builtin_names());
    }
    if (r == 0 && read_tool_use(c, p, v) < 0 &&
        !(c->bad_tool_use = tr_strdup(TR_MEM_TEXT, tr_error_message())))
        r = -ENOMEM;
    return r < 0 ? r : remember(c, where);
}

static int open_named(struct chat *c, const char *name)
{
    const char *text = chat_builtin(name);
    int r;

    if (!text && chat_is_name(name))
        return tr_error(-EINVAL, "template \"%s\" is not known: give one of %s, or a file", name,
                        chat_builtin_names());
    r = text ? jinja_open(&c->template, text, strlen(text), name) : open_file(&c->template, name);
    return r < 0 ? r : remember(c, name);
}

static void add_token(struct chat *c, const json_t *config, const char *key, const char *piece)
{
    json_t *v = json_object_get(config, key);

    if (json_is_object(v))
        v = json_object_get(v, "content");
    if (json_is_string(v))
        tr_json_add(&c->tokens, key, json_incref(v));
    else if (piece)
        tr_json_add(&c->tokens, key, json_string(piece));
}

static const char *piece_of(const struct tr_tokenizer *t, int32_t id)
{
    return t && id >= 0 ? tr_tokenizer_piece(t, id) : NULL;
}

static int add_tokens(struct chat *c, const struct chat_params *p, const json_t *config)
{
    const struct tr_tokenizer *t = p->tokenizer;

    c->tokens = json_object();
    add_token(c, config, "bos_token", piece_of(t, t ? tr_tokenizer_bos(t) : -1));
    add_token(c, config, "eos_token", piece_of(t, t ? tr_tokenizer_eos(t) : -1));
    add_token(c, config, "pad_token", NULL);
    add_token(c, config, "unk_token", NULL);
    if (t && tr_tokenizer_adds_bos(t))
        add_token(c, NULL, "added_bos", piece_of(t, tr_tokenizer_bos(t)));
    return c->tokens ? 0 : tr_error(-ENOMEM, "out of memory");
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
static json_t *message_for(const struct jinja *t, json_t *m)
{
    if (!json_is_null(json_object_get(m, "content")) || jinja_uses(t, "none") ||
        jinja_uses(t, "None"))
        return json_incref(m);
    m = tr_json_copy(m);
    json_object_del(m, "content");
    return m;
}

static json_t *first_messages(const struct jinja *t, const struct chat_conversation *of, size_t n)
{
    json_t *messages = json_array();

    for (size_t i = 0; i < n; i++)
        tr_json_append(&messages, message_for(t, json_array_get(of->messages, i)));
    return messages;
}

/* The reference passes tools and documents on in every case. */
static json_t *variables_of(const struct chat *c, const struct chat_conversation *of,
                            json_t *messages, int prompt)
{
    json_t *v = tr_json_copy(c->tokens);

    tr_json_add(&v, "messages", json_incref(messages));
    tr_json_add(&v, "add_generation_prompt", json_boolean(prompt));
    tr_json_add(&v, "tools", of->tools ? json_incref(of->tools) : json_null());
    tr_json_add(&v, "documents", json_null());
    return v;
}

int chat_render(const struct chat *c, const struct chat_conversation *of, size_t n, int prompt,
                struct jinja_output *out)
{
    const struct jinja *t = chat_template(c, of);
    struct jinja_input in = {0};
    int r;

    *out = (struct jinja_output){0};
    if (of->tools && c->bad_tool_use)
        return tr_error(-ENOTSUP, "%s", c->bad_tool_use);
    in.messages = first_messages(t, of, n);
    in.variables = in.messages ? variables_of(c, of, in.messages, prompt) : NULL;
    r = in.variables ? jinja_render(t, &in, out) : tr_error(-ENOMEM, "out of memory");
    if (r < 0)
        jinja_output_free(out);
    json_decref(in.messages);
    json_decref(in.variables);
    return r;
}
