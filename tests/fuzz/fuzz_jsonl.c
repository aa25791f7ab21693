/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as the lines of a JSONL file (invariant 9). What is read must make rows and batches
 * whose tokens and targets lie inside the vocabulary, and no memory may be kept.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/data_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

/* A few letters and all bytes; kept for all inputs. */
static struct tr_tokenizer *small_tokenizer(void)
{
    static struct tr_tokenizer *t;
    static char json[16384];
    char *p = json;
    int id = 0;

    if (t)
        return t;
    p += sprintf(p, "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"</s>\":%d",
                 id++);
    for (int b = 0; b < 256; b++)
        p += sprintf(p, ",\"<0x%02X>\":%d", b, id++);
    for (int c = 'a'; c <= 'z'; c++)
        p += sprintf(p, ",\"%c\":%d", c, id++);
    sprintf(p, ",\"he\":%d},\"merges\":[\"h e\"]}}", id);
    must(tr_tokenizer_parse(&t, &(struct tr_tokenizer_text){.json = json,
                                                            .json_bytes = strlen(json),
                                                            .config = "{\"eos_token\":\"</s>\"}",
                                                            .config_bytes = 20,
                                                            .where = "small"}) == 0);
    return t;
}

static void check_batches(struct tr_data *d, int64_t epoch)
{
    uint64_t tokens = 0;
    double weight = 0;

    for (int64_t s = 0; s < tr_data_steps(d); s++) {
        struct tr_batch b;

        must(tr_data_batch(d, epoch, s, &b) == 0);
        must(b.n_tokens <= tr_data_batch_tokens(d));
        for (int32_t i = 0; i < b.n_tokens; i++)
            must(b.ids[i] >= 0 && b.ids[i] < d->p.vocab && b.targets[i] < d->p.vocab);
        tokens += (uint64_t)b.n_tokens;
        weight += b.weight_sum;
    }
    must(tokens == d->info.tokens && weight >= 0 &&
         (d->scale || weight == (double)d->info.targets));
}

static int feed_line(struct tr_data *d, const char *line, size_t n)
{
    json_t *o;
    int r = tr_json_parse(line, n, "fuzz", &o);

    if (r < 0)
        return r;
    r = json_is_object(o) ? data_read_record(d, "fuzz", o) : -EINVAL;
    json_decref(o);
    return r;
}

static void feed(struct tr_data *d, const char *text, size_t n)
{
    int r = 0;

    while (r == 0 && n) {
        const char *end = memchr(text, '\n', n);
        size_t bytes = end ? (size_t)(end - text) : n;

        if (bytes)
            r = feed_line(d, text, bytes);
        bytes += end != NULL;
        text += bytes;
        n -= bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tr_tokenizer *t = small_tokenizer();
    uint64_t before = tr_mem_now(TR_MEM_TEXT);
    struct tr_data *d = tr_alloc(TR_MEM_TEXT, sizeof(*d));

    must(d != NULL);
    d->p = (struct tr_data_params){.tokenizer = t,
                                   .template_name = "alpaca",
                                   .vocab = 280,
                                   .seq_len = size % 3 ? 24 : 400,
                                   .batch_size = 3,
                                   .shuffle = 1,
                                   .grain_tokens = 16,
                                   .packing_asked = size % 2 != 0};
    d->epoch = -1;
    d->path = tr_strdup(TR_MEM_TEXT, "fuzz");
    feed(d, (const char *)data, size);
    d->pack = d->info.format != TR_DATA_IDS || d->p.packing_asked;
    if (d->info.targets && d->start[d->n_samples] == d->tokens.n) {
        must(data_batch_init(d) == 0);
        check_batches(d, 0);
        check_batches(d, 1);
    }
    tr_data_close(d);
    must(tr_mem_now(TR_MEM_TEXT) == before && tr_mem_now(TR_MEM_BATCH) == 0);
    return 0;
}
