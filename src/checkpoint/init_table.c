/* SPDX-License-Identifier: Apache-2.0
 *
 * What a shape by name becomes: the model's table and the small files of its folder.
 */
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/checkpoint/init.h"
#include "src/checkpoint/keep.h"

static int open_table(const json_t *config, const char *arch, int dtype, struct tr_model **model)
{
    struct tr_model_config *c = tr_alloc(TR_MEM_MISC, sizeof(*c));
    enum tr_dtype types[TR_ROLES];
    int r = c ? tr_config_parse(config, arch, c) : -ENOMEM;

    if (r == 0) {
        dtype = dtype >= 0 ? dtype : c->dtype >= 0 ? c->dtype : TR_F32;
        for (int i = 0; i < TR_ROLES; i++)
            types[i] = (enum tr_dtype)dtype;
        r = tr_model_open(model, &(struct tr_model_params){c, types, 0, 0});
    }
    tr_free(TR_MEM_MISC, c);
    return r;
}

int tr_init_model_table(const char *arch, int dtype, struct tr_model **model, json_t **config)
{
    json_t *o;
    int r = tr_config_arch(arch, &o);

    *model = NULL;
    *config = NULL;
    if (r < 0)
        return r;
    r = open_table(o, arch, dtype, model);
    if (r < 0)
        goto fail;
    json_object_del(o, "dtype");
    tr_json_add(&o, "torch_dtype", json_string(tr_keep_type_name((*model)->dtype)));
    r = o ? 0 : tr_error(-ENOMEM, "out of memory");
    if (r < 0)
        goto fail;
    *config = o;
    return 0;

fail:
    tr_model_close(*model);
    *model = NULL;
    json_decref(o);
    return r;
}

static json_t *generation_json(const json_t *config)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    json_t *o = json_pack("{s:b}", "_from_model_config", 1);

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        json_t *v = json_object_get(config, keys[i]);

        if (v)
            tr_json_add(&o, keys[i], json_incref(v));
    }
    return o;
}

int tr_init_write_files(const char *folder, const json_t *config, const char *tokenizer)
{
    char *a = tr_path(folder, "config.json"), *b = tr_path(folder, "generation_config.json");
    json_t *generation = generation_json(config);
    int r = a && b && generation ? tr_json_write(a, config) : -ENOMEM;

    if (r == 0)
        r = tr_json_write(b, generation);
    if (r == 0 && tokenizer)
        r = tr_keep_copy_tokenizer(tokenizer, folder);
    json_decref(generation);
    tr_free(TR_MEM_MISC, a);
    tr_free(TR_MEM_MISC, b);
    return r;
}
