/* SPDX-License-Identifier: Apache-2.0
 *
 * The tiles of attention, shared by cpu/attention.c and cpu/attention_grad.c. A document is cut
 * into query tiles and key tiles counted from its own start, so its bits depend on nothing around
 * it. A tile (i, j) meets the keys of tile j up to the last query of tile i.
 */
#ifndef TR_CPU_ATTENTION_H
#define TR_CPU_ATTENTION_H

#include "cpu/cpu.h"

#define TR_QUERY_TILE 64
#define TR_KEY_TILE   256 /* a multiple of TR_QUERY_TILE and TR_LANES */

struct tr_attention_tile {
    const struct tr_cpu *cpu;
    const struct tr_op_attention *op;
    int64_t doc, length;    /* the document's first token and its tokens */
    int64_t head;           /* of the queries */
    int64_t query, queries; /* first, counted inside the document, and how many */
    int64_t key, keys;
    float *scores; /* (TR_QUERY_TILE, TR_KEY_TILE) scratch */
    float *ds;     /* likewise; backward */
};

/* Share s of the work has items s, s + shares ...: long and short ones mix. Every worker begins
 * with some, so that one who is held up has some to be taken from. */
struct tr_attention_job {
    const struct tr_cpu *cpu;
    const struct tr_op_attention *op;
    int shares;
};

#define TR_ATTENTION_SHARES 8 /* of a worker */

static inline struct tr_attention_job tr_attention_job(const struct tr_cpu *cpu,
                                                       const struct tr_op_attention *op)
{
    return (struct tr_attention_job){cpu, op, tr_pool_threads(cpu->pool) * TR_ATTENTION_SHARES};
}

/* Is this item of one of the shares [begin, end)? */
static inline int tr_attention_has(const struct tr_attention_job *j, int64_t item, int64_t begin,
                                   int64_t end)
{
    int64_t share = item % j->shares;

    return share >= begin && share < end;
}

/* Document d into t. */
void tr_attention_tile_doc(struct tr_attention_tile *t, int32_t d);
/* Query tile that begins at `query`. */
void tr_attention_tile_queries(struct tr_attention_tile *t, int64_t query);
/* Key tile that begins at `key`, for the query tile that is set. */
void tr_attention_tile_keys(struct tr_attention_tile *t, int64_t key);
/* The first key tile that the query tile sees. */
int64_t tr_attention_first_key(const struct tr_attention_tile *t);
/* One past the last query that sees the key tile beginning at key. */
int64_t tr_attention_end_query(const struct tr_attention_tile *t, int64_t key);

/* scores = q k^T, unscaled, -infinity where masked, up to a multiple of TR_LANES columns. */
void tr_attention_scores(const struct tr_attention_tile *t);
int64_t tr_attention_columns(const struct tr_attention_tile *t);

/* Row of head h of token `token` of the document in a tensor of `heads` heads. */
static inline float *tr_attention_at(const struct tr_attention_tile *t, const float *tensor,
                                     int64_t heads, int64_t h, int64_t token)
{
    return (float *)tensor + ((t->doc + token) * heads + h) * t->op->head_dim;
}

static inline int64_t tr_attention_kv_head(const struct tr_attention_tile *t)
{
    return t->head / (t->op->heads / t->op->kv_heads);
}

int tr_attention_check(const struct tr_op_attention *op);

#endif
