/* SPDX-License-Identifier: Apache-2.0 */
#include "src/checkpoint/peft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"

#define CONFIG       "adapter_config.json"
#define WEIGHTS      "adapter_model.safetensors"
#define PREFIX       "base_model.model."
#define CONFIG_BYTES (1u << 20)
#define NAME_CHARS   256
#define MAX_ALPHA    1e6
#define CHUNK        1024

/* Absent, null, false, empty: what an option says that is not used. */
static int check_unused(const json_t *root, const char *where)
{
    static const char *const keys[] = {
        "fan_in_fan_out",          "modules_to_save", "layer_replication", "rank_pattern",
        "alpha_pattern",           "use_dora",        "lora_bias",         "target_parameters",
        "trainable_token_indices", "use_qalora",      "arrow_config",      "megatron_config",
        "alora_invocation_tokens"};
    const char *bias = json_string_value(json_object_get(root, "bias"));
    const char *init = json_string_value(json_object_get(root, "init_lora_weights"));

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (tr_json_says(json_object_get(root, keys[i])))
            return tr_error(-ENOTSUP, "%s: \"%s\" is not supported", where, keys[i]);
    /* The others change the model as well. */
    if (init && strcmp(init, "gaussian") && strcmp(init, "eva") && strcmp(init, "orthogonal"))
        return tr_error(-ENOTSUP, "%s: \"init_lora_weights\": \"%s\" is not supported", where,
                        init);
    if (bias && strcmp(bias, "none"))
        return tr_error(-ENOTSUP, "%s: \"bias\": \"%s\" is not supported, only \"none\" is", where,
                        bias);
    return 0;
}

int tr_peft_parse(const json_t *root, const char *where, struct tr_lora *lora)
{
    const char *type = json_string_value(json_object_get(root, "peft_type"));
    json_int_t rank = json_integer_value(json_object_get(root, "r"));
    double alpha = json_number_value(json_object_get(root, "lora_alpha"));
    double dropout = json_number_value(json_object_get(root, "lora_dropout"));
    int r;

    memset(lora, 0, sizeof(*lora));
    if (!type || strcmp(type, "LORA"))
        return tr_error(-ENOTSUP, "%s: \"peft_type\" is %s, only LORA is supported", where,
                        type ? type : "missing");
    if (rank < 1 || rank > TR_LORA_MAX_RANK)
        return tr_error(-EINVAL, "%s: \"r\" is not from 1 to %d", where, TR_LORA_MAX_RANK);
    if (!(alpha > 0 && alpha <= MAX_ALPHA))
        return tr_error(-EINVAL, "%s: \"lora_alpha\" is not above 0 and at most %g", where,
                        MAX_ALPHA);
    if (!(dropout >= 0 && dropout < 1))
        return tr_error(-EINVAL, "%s: \"lora_dropout\" is not from 0 to below 1", where);
    if ((r = check_unused(root, where)) < 0)
        return r;
    lora->rank = (int32_t)rank;
    lora->dropout = dropout;
    lora->alpha =
        json_is_true(json_object_get(root, "use_rslora")) ? alpha * sqrt((double)rank) : alpha;
    return 0;
}

static int read_config(struct tr_peft *p)
{
    char *path = tr_path(p->folder, CONFIG);
    json_t *root = NULL;
    int r = path ? tr_json_read(path, CONFIG_BYTES, &root) : -ENOMEM;

    if (r == 0)
        r = tr_peft_parse(root, path, &p->lora);
    json_decref(root);
    tr_free(TR_MEM_MISC, path);
    return r;
}

static int open_weights(struct tr_peft *p)
{
    char *path = tr_path(p->folder, WEIGHTS);
    int r = path ? 0 : -ENOMEM;

    if (r == 0 && !tr_folder_has(p->folder, WEIGHTS))
        r = tr_error(-ENOENT, "%s: has no " WEIGHTS, p->folder);
    if (r == 0)
        r = tr_safetensors_open_file(&p->weights, path);
    tr_free(TR_MEM_MISC, path);
    return r;
}

/* "...q_proj.lora_A.weight" */
static int add_target(struct tr_peft *p, const char *tensor)
{
    const char *end = strstr(tensor, ".lora_"), *from = end;
    char name[NAME_CHARS];
    unsigned one = 0;
    int r;

    while (from && from > tensor && from[-1] != '.')
        from--;
    snprintf(name, sizeof(name), "%.*s", end ? (int)(end - from) : 0, from ? from : "");
    r = end ? tr_lora_parse_targets(name, &one)
            : tr_error(-ENOTSUP, "this is no matrix of an adapter");
    p->lora.targets |= one;
    return r < 0 ? tr_error_prefix(r, "%s: tensor %s", p->folder, tensor) : 0;
}

/* By the tensors' names. What the configuration says of them may be a regular expression, and more
 * than one key; tr_peft_check sees to it that all layers have all of them. */
static int find_targets(struct tr_peft *p)
{
    int r = 0;

    if (!p->weights->n_tensors)
        return tr_error(-EINVAL, "%s: " WEIGHTS " is empty", p->folder);
    for (uint32_t i = 0; i < p->weights->n_tensors && r == 0; i++)
        r = add_target(p, p->weights->tensors[i].name);
    return r;
}

int tr_peft_open(struct tr_peft **out, const char *folder)
{
    struct tr_peft *p = tr_alloc(TR_MEM_MISC, sizeof(*p));
    int r;

    *out = NULL;
    if (!p)
        return -ENOMEM;
    p->folder = tr_strdup(TR_MEM_MISC, folder);
    r = p->folder ? 0 : -ENOMEM;
    if (r < 0 || (r = read_config(p)) < 0 || (r = open_weights(p)) < 0 ||
        (r = find_targets(p)) < 0) {
        tr_peft_close(p);
        return r;
    }
    *out = p;
    return 0;
}

void tr_peft_close(struct tr_peft *p)
{
    if (!p)
        return;
    tr_safetensors_close(p->weights);
    tr_free(TR_MEM_MISC, p->folder);
    tr_free(TR_MEM_MISC, p);
}

static const struct tr_st_tensor *find(const struct tr_peft *p, const struct tr_tensor *t)
{
    char name[NAME_CHARS];

    snprintf(name, sizeof(name), PREFIX "%s", t->name);
    return tr_safetensors_find(p->weights, name);
}

static int check_tensor(const struct tr_peft *p, const struct tr_tensor *t)
{
    const struct tr_st_tensor *in = find(p, t);

    if (!in)
        return tr_error(-EINVAL, "%s: has no " PREFIX "%s", p->folder, t->name);
    if (in->dims != 2 || in->shape[0] != t->rows || in->shape[1] != t->cols)
        return tr_error(-EINVAL, "%s: tensor %s has another shape than (%lld, %lld)", p->folder,
                        in->name, (long long)t->rows, (long long)t->cols);
    if (in->dtype < 0)
        return tr_error(-ENOTSUP, "%s: tensor %s is of type %s", p->folder, in->name,
                        in->dtype_name);
    return 0;
}

int tr_peft_check(const struct tr_peft *p, const struct tr_model *m)
{
    uint32_t n = 0;
    int r;

    for (int32_t i = m->n_base; i < m->n_tensors; i++, n++)
        if ((r = check_tensor(p, &m->tensors[i])) < 0)
            return r;
    if (n != p->weights->n_tensors)
        return tr_error(-EINVAL, "%s: holds %u tensors, adapters of this model are %u", p->folder,
                        p->weights->n_tensors, n);
    return 0;
}

int tr_peft_fill(struct tr_peft *p, const struct tr_tensor *t, uint64_t from, size_t n, float *buf)
{
    const struct tr_st_tensor *in = find(p, t);
    enum tr_dtype type = (enum tr_dtype)in->dtype;
    size_t size = tr_dtype_size(type), done = 0;
    float some[CHUNK];
    int r = 0;

    while (r == 0 && done < n) {
        size_t now = n - done < CHUNK ? n - done : CHUNK;

        r = tr_safetensors_read(p->weights, in, (from + done) * size, some, now * size);
        for (size_t i = 0; r == 0 && i < now; i++)
            buf[done + i] = tr_load_f32(some, type, i);
        done += now;
    }
    return r;
}

/* ---- writing ---- */

static json_t *targets_json(unsigned targets)
{
    json_t *list = json_array();

    for (int t = 0; t < TR_LORA_TARGETS; t++)
        if (targets >> t & 1)
            tr_json_append(&list, json_string(tr_lora_target_name((enum tr_lora_target)t)));
    return list;
}

/* Every key that its reader might miss, in its own spelling. */
static json_t *config_json(const struct tr_lora *l, const char *base)
{
    json_t *alpha =
        l->alpha == floor(l->alpha) ? json_integer((json_int_t)l->alpha) : json_real(l->alpha);

    return json_pack("{s:n, s:s?, s:s, s:b, s:b, s:b, s:n, s:o, s:f, s:n, s:s, s:i, s:{}, s:{}, "
                     "s:o, s:s, s:b, s:b}",
                     "auto_mapping", "base_model_name_or_path", base, "bias", "none",
                     "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1,
                     "layers_to_transform", "lora_alpha", alpha, "lora_dropout", l->dropout,
                     "modules_to_save", "peft_type", "LORA", "r", (int)l->rank, "rank_pattern",
                     "alpha_pattern", "target_modules", targets_json(l->targets), "task_type",
                     "CAUSAL_LM", "use_dora", 0, "use_rslora", 0);
}

static int write_config(const struct tr_kept *k, const char *folder)
{
    char *path = tr_path(folder, CONFIG);
    const struct tr_lora *l = &k->model->lora;
    json_t *o = config_json(l, tr_lora_freezes(l) ? k->base : NULL); /* it has changed, else */
    int r = path && o ? tr_json_write(path, o) : -ENOMEM;

    json_decref(o);
    tr_free(TR_MEM_MISC, path);
    return r;
}

/* The adapters' tensors as the only file of a folder, under PEFT's names. */
static int name_tensors(const struct tr_model *m, struct tr_shard_file *f)
{
    f->name = tr_strdup(TR_MEM_MISC, WEIGHTS);
    f->metadata = json_pack("{s:s}", "format", "pt");
    f->tensors =
        tr_alloc_array(TR_MEM_MISC, (size_t)(m->n_tensors - m->n_base), sizeof(*f->tensors));
    if (!f->name || !f->metadata || !f->tensors)
        return -ENOMEM;
    for (int32_t i = m->n_base; i < m->n_tensors; i++) {
        char name[NAME_CHARS];

        snprintf(name, sizeof(name), PREFIX "%s", m->tensors[i].name);
        f->tensors[f->n_tensors] = (struct tr_shard_tensor){
            .name = tr_strdup(TR_MEM_MISC, name), .tensor = i, .source = TR_F32};
        if (!f->tensors[f->n_tensors++].name)
            return -ENOMEM;
    }
    return 0;
}

static int write_weights(const struct tr_export_params *p, const struct tr_kept *k,
                         const char *folder)
{
    struct tr_export_reader reader;
    struct tr_shards shards = {.n_files = 1};
    int r = tr_export_reader_open(&reader, p->store, k->model);

    shards.files = tr_alloc_array(TR_MEM_MISC, 1, sizeof(*shards.files));
    if (r == 0)
        r = shards.files ? name_tensors(k->model, shards.files) : -ENOMEM;
    if (r == 0)
        r = tr_shards_write(&(struct tr_shards_write_params){.folder = folder,
                                                             .shards = &shards,
                                                             .model = k->model,
                                                             .dtype = p->dtype,
                                                             .fill = tr_export_fill,
                                                             .arg = &reader});
    tr_export_reader_close(&reader);
    tr_shards_free(&shards);
    return r;
}

int tr_peft_write(const struct tr_export_params *p, const struct tr_kept *k, const char *folder)
{
    int r = write_config(k, folder);

    return r < 0 ? r : write_weights(p, k, folder);
}
