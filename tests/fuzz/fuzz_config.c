/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as config.json (invariant 9). What is accepted must be a model that can be laid out and
 * whose rotary tables are finite; no memory may be kept.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "offload/layout.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/model/model.h"

#define POSITIONS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static void check_rope(const struct tr_model_config *c)
{
    static float cosine[POSITIONS * 512], sine[POSITIONS * 512];

    if (tr_rope_tables(c, POSITIONS, cosine, sine) < 0)
        return;
    for (int i = 0; i < POSITIONS * c->head_dim / 2; i++)
        must(isfinite(cosine[i]) && isfinite(sine[i]));
}

/* Large models are laid out just as well, but a fuzzer has no time for them. */
static void check_model(struct tr_model_config *c)
{
    enum tr_dtype types[TR_ROLES];
    struct tr_model *m;

    for (int i = 0; i < TR_ROLES; i++)
        types[i] = (enum tr_dtype)(i % TR_DTYPES);
    if (c->layers > 4 || c->vocab > 100000 || c->hidden > 4096 || c->ffn > 65536)
        return;
    must(tr_model_open(&m, &(struct tr_model_params){c, types, c->layers % 2, c->tied, NULL}) == 0);
    must(tr_layout_check(&m->layout, "fuzz") == 0);
    for (int32_t i = 0; i < m->n_tensors; i++)
        must(tr_model_find(m, m->tensors[i].name) == &m->tensors[i]);
    tr_model_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tr_model_config c;
    uint64_t before = tr_mem_now(TR_MEM_MISC);
    json_t *root;

    if (tr_json_parse((const char *)data, size, "fuzz", &root) < 0)
        return 0;
    if (tr_config_parse(root, "fuzz", &c) == 0) {
        must(c.hidden > 0 && c.heads > 0 && c.heads % c.kv_heads == 0);
        must(c.head_dim >= 2 && c.head_dim <= 1024 && c.head_dim % 2 == 0);
        must(c.layers > 0 && c.layers <= TR_MAX_LAYERS && c.vocab > 0 && c.max_position > 0);
        check_rope(&c);
        check_model(&c);
    }
    json_decref(root);
    must(tr_mem_now(TR_MEM_MISC) == before);
    return 0;
}
