/* SPDX-License-Identifier: Apache-2.0
 *
 * What a run reads of its own folder beside run.yaml (invariant 9): tailrace-shards.json, for a
 * model of two layers, and plan.json; each input is tried as both. Shards that pass must be those
 * of the model, each tensor in a file, each file with a name of its own in the export's folder, and
 * must read again as they were written.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/checkpoint/keep.h"
#include "src/plan/plan_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char shape[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":64,"
    "\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":8,"
    "\"num_key_value_heads\":2,\"vocab_size\":300,\"max_position_embeddings\":128,"
    "\"rms_norm_eps\":1e-06,\"tie_word_embeddings\":true}";

static void must(int truth)
{
    if (!truth)
        abort();
}

static void check_files(const struct tr_kept *k)
{
    unsigned char seen[256] = {0};
    int32_t n = 0;

    must(k->model->n_tensors <= 256);
    for (uint32_t i = 0; i < k->shards.n_files; i++) {
        const struct tr_shard_file *f = &k->shards.files[i];

        must(f->name[0] && f->name[0] != '.' && !strchr(f->name, '/'));
        for (uint32_t j = 0; j < i; j++)
            must(strcmp(f->name, k->shards.files[j].name) != 0);
        for (uint32_t j = 0; j < f->n_tensors; j++) {
            must(f->tensors[j].tensor >= 0 && f->tensors[j].tensor < k->model->n_tensors);
            n += !seen[f->tensors[j].tensor];
            seen[f->tensors[j].tensor] = 1;
        }
    }
    must(n == k->model->n_tensors);
}

static void check_again(const struct tr_kept *k)
{
    json_t *o = tr_shards_to_json(&k->shards), *again;
    struct tr_shards s;

    must(o != NULL);
    must(tr_shards_from_json(&s, o, k->model, "copy") == 0);
    again = tr_shards_to_json(&s);
    must(json_equal(o, again));
    json_decref(o);
    json_decref(again);
    tr_shards_free(&s);
}

static const struct tr_model_config *config(void)
{
    static struct tr_model_config c;
    json_t *root;

    if (c.hidden)
        return &c;
    must(tr_json_parse(shape, sizeof(shape) - 1, "shape", &root) == 0);
    must(tr_config_parse(root, "shape", &c) == 0);
    json_decref(root);
    return &c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t before = tr_mem_now(TR_MEM_MISC);
    struct tr_plan_file plan;
    struct tr_kept *k;

    if (tr_keep_parse(&k, (const char *)data, size, "input", config()) == 0) {
        check_files(k);
        check_again(k);
        tr_keep_close(k);
    }
    if (tr_plan_file_parse((const char *)data, size, "input", &plan) == 0)
        must(plan.steps >= 0 && memchr(plan.store_uuid, 0, sizeof(plan.store_uuid)) &&
             memchr(plan.bits, 0, sizeof(plan.bits)));
    must(tr_mem_now(TR_MEM_MISC) == before);
    return 0;
}
