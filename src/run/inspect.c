/* SPDX-License-Identifier: Apache-2.0
 *
 * Looks at what kind of thing a path is and describes it as one JSON object with "kind" and "path".
 * Weights are described by their headers: no tensor is read.
 */
#include "src/run/inspect.h"

#include <string.h>
#include <sys/stat.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/utf8.h"
#include "src/checkpoint/peft.h"

static json_t *windows_json(const struct tr_model_config *c)
{
    json_t *list = json_array();
    int any = 0;

    for (int32_t i = 0; i < c->layers; i++) {
        tr_json_append(&list, c->window[i] ? json_integer(c->window[i]) : json_null());
        any |= c->window[i] != 0;
    }
    if (any)
        return list;
    json_decref(list);
    return json_null();
}

static json_t *config_json(const struct tr_model_config *c)
{
    static const char *const ropes[] = {"default", "linear", "dynamic", "llama3", "yarn"};

    return json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:b, s:b, s:b, s:b, s:s, s:f, s:o}",
        "architecture", c->architecture, "layers", c->layers, "hidden", c->hidden, "ffn", c->ffn,
        "heads", c->heads, "kv_heads", c->kv_heads, "head_dim", c->head_dim, "vocab", c->vocab,
        "max_position", (json_int_t)c->max_position, "tied", c->tied, "qkv_bias", c->qkv_bias,
        "o_bias", c->o_bias, "qk_norm", c->qk_norm, "rope", ropes[c->rope.type], "rope_theta",
        c->rope.theta, "windows", windows_json(c));
}

static json_t *tensor_json(const struct tr_safetensors *s, const struct tr_st_tensor *t)
{
    json_t *shape = json_array();

    for (int i = 0; i < t->dims; i++)
        tr_json_append(&shape, json_integer(t->shape[i]));
    return json_pack("{s:s, s:s, s:o, s:I, s:s}", "name", t->name, "dtype", t->dtype_name, "shape",
                     shape, "bytes", (json_int_t)t->bytes, "file", s->shards[t->shard].name);
}

/* Adds "files", "tensors", "tensor_bytes", "note". */
static void add_weights(json_t **o, const struct tr_safetensors *s)
{
    json_t *files = json_array(), *tensors = json_array();
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < s->n_shards; i++) {
        json_t *f =
            json_pack("{s:s, s:I, s:i}", "name", s->shards[i].name, "bytes",
                      (json_int_t)s->shards[i].file_bytes, "tensors", (int)s->shards[i].n_tensors);

        if (s->shards[i].metadata)
            tr_json_add(&f, "metadata", json_incref(s->shards[i].metadata));
        tr_json_append(&files, f);
    }
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        tr_json_append(&tensors, tensor_json(s, &s->tensors[i]));
        bytes += s->tensors[i].bytes;
    }
    tr_json_add(o, "files", files);
    tr_json_add(o, "tensor_bytes", json_integer((json_int_t)bytes));
    if (s->note[0])
        tr_json_add(o, "note", json_string(s->note));
    tr_json_add(o, "tensors", tensors);
}

static int describe_weights(json_t **o, const char *path, int folder)
{
    struct tr_safetensors *s;
    int r = folder ? tr_safetensors_open_folder(&s, path) : tr_safetensors_open_file(&s, path);

    if (r == 0)
        add_weights(o, s);
    tr_safetensors_close(s);
    return r;
}

static int describe_model(json_t **o, const char *folder)
{
    char *path = tr_path(folder, "config.json");
    struct tr_model_config *c = tr_alloc(TR_MEM_MISC, sizeof(*c));
    int r = path && c ? tr_config_read(path, c) : -ENOMEM;

    if (r == 0) {
        tr_json_add(o, "config", config_json(c));
        r = describe_weights(o, folder, 1);
    }
    tr_free(TR_MEM_MISC, path);
    tr_free(TR_MEM_MISC, c);
    return r;
}

static json_t *adapters_json(const struct tr_lora *l)
{
    char targets[TR_LORA_TEXT];

    tr_lora_targets_text(l->targets, targets);
    return json_pack("{s:i, s:f, s:f, s:s}", "rank", (int)l->rank, "alpha", l->alpha, "dropout",
                     l->dropout, "targets", targets);
}

static int describe_adapters(json_t **o, const char *folder)
{
    struct tr_peft *p;
    int r = tr_peft_open(&p, folder);

    if (r < 0)
        return r;
    tr_json_add(o, "adapters", adapters_json(&p->lora));
    add_weights(o, p->weights);
    tr_peft_close(p);
    return 0;
}

static void add_kept(json_t **o, const struct tr_model *m)
{
    tr_json_add(o, "config", config_json(&m->config));
    tr_json_add(o, "parameters", json_integer((json_int_t)m->n_params));
    tr_json_add(o, "dtype", json_string(tr_dtype_name(m->dtype)));
    tr_json_add(o, "optimizer_state", json_boolean(m->state));
    tr_json_add(o, "master", json_string(tr_master_name(m->master)));
    if (m->lora.rank)
        tr_json_add(o, "adapters", adapters_json(&m->lora));
}

static int describe_run(json_t **o, const char *folder, const char *store)
{
    char *keep_path = tr_path(folder, "source"), *beside = tr_folders_below(folder, "store");
    struct tr_kept *k = NULL;
    int r = keep_path && beside ? tr_keep_open(&k, keep_path) : -ENOMEM;

    if (r == 0) {
        add_kept(o, k->model);
        r = tr_inspect_store(o, store ? store : beside, folder);
    }
    if (r == -EBUSY) {
        tr_inspect_busy(o, folder);
        r = 0;
    }
    if (r == 0 && json_object_get(*o, "steps_done"))
        tr_json_add(o, "resume", tr_inspect_resume(*o, folder));
    tr_keep_close(k);
    tr_free(TR_MEM_MISC, keep_path);
    tr_free(TR_MEM_MISC, beside);
    return r;
}

static int describe(json_t **o, const char *path, const char *store, const char **kind)
{
    struct stat st;

    if (stat(path, &st) < 0 && strchr(path, ':')) { /* the folders of one */
        *kind = "store";
        return tr_inspect_store(o, path, NULL);
    }
    if (stat(path, &st) < 0)
        return tr_error(-errno, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode)) {
        *kind = "safetensors file";
        return describe_weights(o, path, 0);
    }
    if (tr_folder_has(path, "store.json")) {
        char *list = store ? NULL : tr_folders_one(path);
        int r = store || list ? tr_inspect_store(o, store ? store : list, NULL) : -ENOMEM;

        *kind = "store";
        tr_free(TR_MEM_MISC, list);
        return r;
    }
    if (tr_folder_has(path, "source/" TR_KEEP_FILE)) {
        *kind = "run";
        return describe_run(o, path, store);
    }
    if (tr_folder_has(path, "run.yaml"))
        return tr_error(-ENODATA,
                        "%s: a run whose import is not done or was cut off; its command starts it "
                        "again",
                        path);
    if (tr_folder_has(path, "adapter_config.json")) {
        *kind = "adapter folder";
        return describe_adapters(o, path);
    }
    *kind = "model folder";
    if (tr_folder_has(path, "config.json"))
        return describe_model(o, path);
    return tr_error(-EINVAL, "%s: neither a model folder (no config.json), nor a run, nor a store",
                    path);
}

int tr_inspect(const char *path, const char *store, json_t **out)
{
    json_t *o = json_pack("{s:s, s:s}", "kind", "", "path", path);
    const char *kind = "";
    int r = tr_utf8_valid(path, strlen(path)) == strlen(path)
                ? describe(&o, path, store, &kind)
                : tr_error(-EINVAL, "the path is not valid UTF-8");

    tr_json_add(&o, "kind", json_string(kind));
    if (r == 0 && !o)
        r = tr_error(-ENOMEM, "no memory for a description");
    *out = r < 0 ? NULL : o;
    if (r < 0)
        json_decref(o);
    return r;
}
