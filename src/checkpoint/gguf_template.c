/* SPDX-License-Identifier: Apache-2.0
 *
 * The chat template that goes into a GGUF file, as a tokenizer's folder has it: in a file of its
 * own, or in tokenizer_config.json, where there may be several by name.
 */
#include <stdio.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/checkpoint/gguf.h"

/* tokenizer_config.json, whose model_max_length may be larger than any integer. */
static int read_config(const char *folder, json_t **config)
{
    char *path = tr_path(folder, "tokenizer_config.json"), *text = NULL;
    size_t bytes = 0;
    json_error_t e;
    int r = path ? 0 : -ENOMEM;

    if (r == 0 && tr_folder_has(folder, "tokenizer_config.json"))
        r = tr_file_read(path, 64 << 20, &text, &bytes);
    if (text && !(*config = json_loadb(text, bytes, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &e)))
        r = tr_error(-EINVAL, "%s: line %d: not valid JSON: %s", path, e.line, e.text);
    tr_free(TR_MEM_TEXT, text);
    tr_free(TR_MEM_MISC, path);
    return r;
}

/* chat_template of tokenizer_config.json, of several the one that is called "default"; or NULL. */
static const char *find_template(const json_t *config)
{
    const json_t *t = json_object_get(config, "chat_template"), *v;
    const char *found = json_string_value(t);
    size_t i;

    json_array_foreach(t, i, v) {
        const char *name = json_string_value(json_object_get(v, "name"));

        if (name && !strcmp(name, "default"))
            found = json_string_value(json_object_get(v, "template"));
    }
    return found;
}

static int read_file(const char *folder, char **out)
{
    char *path = tr_path(folder, "chat_template.jinja");
    size_t bytes;
    int r = path ? 0 : -ENOMEM;

    if (r == 0 && tr_folder_has(folder, "chat_template.jinja"))
        r = tr_file_read(path, 64 << 20, out, &bytes);
    tr_free(TR_MEM_MISC, path);
    return r;
}

int gguf_read_template(const char *folder, char **out)
{
    json_t *config = NULL;
    const char *named;
    int r = read_config(folder, &config);

    *out = NULL;
    if (r == 0)
        r = read_file(folder, out);
    named = find_template(config);
    if (r == 0 && !*out && named) {
        *out = tr_strdup(TR_MEM_TEXT, named);
        r = *out ? 0 : -ENOMEM;
    }
    json_decref(config);
    return r;
}
