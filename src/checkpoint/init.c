/* SPDX-License-Identifier: Apache-2.0
 *
 * A random model as a folder: the export's writer, filled from a generator instead of a store.
 * `train
 * --arch` goes the other way round and imports the same values without a folder between; both fill
 * by (seed, tensor, element), so both start from the same bits.
 */
#include "src/checkpoint/init.h"

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/out_folder.h"
#include "src/model/random_init.h"

static int check_space(const char *out, const struct tr_shards *s, const struct tr_model *m)
{
    uint64_t need = tr_shards_bytes(s, m, -1) + (16u << 20), room;
    int r = tr_free_bytes(out, &room);

    if (r == 0 && room < need)
        r = tr_error(-ENOSPC, "%s: the model needs %llu bytes, %llu are free on that disk", out,
                     (unsigned long long)need, (unsigned long long)room);
    return r;
}

static int fill_folder(const struct tr_init_folder_params *p, const char *folder,
                       const struct tr_model *m, const json_t *config)
{
    struct tr_random_init random = {0};
    struct tr_shards shards;
    struct tr_shards_write_params w = {
        .folder = folder, .shards = &shards, .model = m, .dtype = -1, .fill = tr_random_init_fill};
    int r = tr_shards_plan(&shards, m);

    if (r < 0)
        return r;
    w.arg = &random;
    r = check_space(folder, &shards, m);
    if (r == 0)
        r = tr_random_init_open(&random, &m->config, p->seed, p->threads);
    if (r == 0)
        r = tr_init_write_files(folder, config, p->tokenizer);
    if (r == 0)
        r = tr_shards_write(&w);
    tr_random_init_close(&random);
    tr_shards_free(&shards);
    return r;
}

int tr_init_folder(const struct tr_init_folder_params *p)
{
    struct tr_out_folder out;
    struct tr_model *m;
    json_t *config;
    int r = tr_init_model_table(p->arch, p->dtype, &m, &config);

    if (r < 0)
        return r;
    r = tr_config_check_tokens(&m->config, p->tokenizer, p->tokens);
    if (r == 0)
        r = tr_out_folder_begin(&out, p->out);
    if (r == 0)
        r = tr_out_folder_end(&out, fill_folder(p, out.tmp, m, config));
    json_decref(config);
    tr_model_close(m);
    return r;
}
