/* SPDX-License-Identifier: Apache-2.0
 *
 * The plan: where every byte of device memory goes. Pure: from the model's table, the shapes of the
 * batches and a budget it chooses whether blocks stream whole or part by part, the size of
 * micro-batches, how many blocks keep their activations and how many slots each pool gets, and lays
 * all buffers out in the arena. What it chooses never changes a bit of the result (invariant 1):
 * only ways with equal bits are chosen among. Nothing is allocated on the device later, so the
 * predicted peak is the measured one (invariant 6).
 *
 * The inputs of the blocks are scratch spans of the offload engine: boundary l, (N, hidden) in the
 * storage dtype, is the input of block l, the last one the output of the last block. Behind them
 * come the frames of those blocks that keep their activations. Their slots are pools like the
 * others; what does not fit is spilled for the time between forward and backward.
 *
 * Owns no memory; knows no device. Sizes in bytes, counts in tokens.
 */
#ifndef TR_SRC_PLAN_PLAN_H
#define TR_SRC_PLAN_PLAN_H

#include <jansson.h>

#include "src/base/mem.h"
#include "src/model/model.h"

/* One buffer in the arena. */
struct tr_place {
    uint64_t offset, bytes;
};

/* Activations of one block in the device's compute dtype (rstd, lse and x_mid in f32); offsets
 * relative to the frame. A kept frame, which is a scratch span, has room for all N tokens of the
 * step (micro-batches at their own tokens), the shared one for the M of a micro-batch; where blocks
 * stream part by part for all, as each part's stage goes through all micro-batches. The gradients
 * of gate and up replace them in the shared frame, and once they are spent those of q, k and v lie
 * there.
 *
 * Part by part memory grows with N, so less stays in the shared frame. xn2 is made again from x_mid
 * by each stage that takes it, for its micro-batch alone, in the place of `act`, which no such
 * stage needs. dxn grows over the gradient of gate: that of a micro-batch is spent when the stage
 * comes to the next one. So dxn begins just so far before gate that a micro-batch's never reaches
 * its own tokens there, and dq, dk and dv lie behind its end. */
struct tr_frame {
    uint64_t xn1, rstd1, q, k, v;          /* normed input; q, k after rope */
    uint64_t q_raw, k_raw, rstd_q, rstd_k; /* before q_norm and k_norm; only with qk_norm */
    uint64_t o, lse, x_mid, xn2, rstd2, gate, up;
    uint64_t dq, dk, dv; /* in the place of gate and up */
    uint64_t dxn;        /* part by part: (N, hidden) f32, gradient of a normed input */
    uint64_t bytes;
};

/* Scratch of a block's backward pass, relative to its start: the halves never live together. In
 * the compute dtype, but dxn and delta, which are f32. */
struct tr_backward_scratch {
    uint64_t dxn;  /* (M, hidden) gradient of a normed input; part by part: in the frame */
    uint64_t dy;   /* (M, hidden) the residual gradient as the matmuls take it; f32: unused */
    uint64_t dact; /* (M, ffn) */
    uint64_t d_o, delta;
    uint64_t bytes;
};

/* What moves at once: all of a block, or one part of it (a matrix). */
enum tr_streams { TR_STREAMS_AUTO, TR_STREAMS_BLOCKS, TR_STREAMS_PARTS };

/* Blocks that keep their activations, the last ones: as many as the device has room for, `keep` of
 * them before records that stay; exactly `keep`, on the device before all else; exactly `keep`,
 * with what records that stay leave no room for spilled. */
enum tr_frames { TR_FRAMES_FIT, TR_FRAMES_FIRST, TR_FRAMES_SPILL };

/* Rows of a table that are gone through at once, for all tokens, where its update is fused: before
 * the first grain changes them every grain has used them. */
#define TR_FUSED_ROWS 256

struct tr_plan_params {
    const struct tr_model *model;
    int32_t batch_tokens;  /* N: the most tokens of a step */
    int32_t grain_tokens;  /* the most tokens of a grain */
    int32_t micro_tokens;  /* of a micro-batch at most, whole grains; 0: as the budget allows */
    int64_t positions;     /* rows of the rotary tables */
    enum tr_dtype compute; /* of activations: what the device says for the model's dtype */
    int train;             /* 0: forward only */
    int norm;              /* the global norm is measured before the update */
    int fused;             /* updates of matrices are products into the weights: no gradients */
    int32_t group;         /* or that of so many units of the backward pass, each group's in turn */
    enum tr_frames frames; /* blocks that keep their activations: which, and `keep` how many */
    int32_t keep;
    enum tr_streams streams; /* AUTO: blocks where two fit at once, else parts */
    int64_t logit_rows;      /* forward only: rows of logits taken out at once; 0: losses only */
    int64_t cache_tokens;    /* forward only: keys and values that stay, of all blocks; 0: none */
    int apart;               /* updates run on the cpu, and optimizer state stays in host memory */
    uint64_t budget;         /* arena bytes */
    uint64_t host_budget;    /* apart: bytes for that */
    uint64_t workspace;      /* of the device, for the message about the smallest budget */
};

struct tr_plan {
    struct tr_plan_params in;
    int32_t micro_tokens; /* M: the most tokens of a micro-batch */
    int several;          /* a step may have more than one micro-batch */
    int by_parts;         /* a visit for each part of a block; all parts share slots */
    int parked;           /* all gradients stay until the norm is known: no second backward */
    int held;             /* a table's gradient stays for its second sweep */
    int32_t keep;         /* the last `keep` blocks keep their activations */
    uint32_t spans[TR_SLOT_POOLS], slots[TR_SLOT_POOLS];
    uint64_t slot_bytes[TR_SLOT_POOLS];

    struct tr_frame kept_frame, shared_frame;
    struct tr_backward_scratch back;

    struct tr_place pool[TR_SLOT_POOLS];
    struct tr_place ids, targets, position, scale;    /* (N) */
    struct tr_place doc_first, doc_end;               /* (N) documents, for attention */
    struct tr_place max, sum, target_logit, lse, nll; /* (N) */
    struct tr_place cos, sin;
    struct tr_place dx;      /* (N, hidden) f32: gradient at the current boundary */
    struct tr_place shared;  /* frame of the block at hand, where it keeps none */
    struct tr_place act;     /* (M, ffn) compute dtype: input of the last matmul; or xn2 */
    struct tr_place norm2;   /* (hidden) part by part: the second norm's weight, of the block */
    struct tr_place mlp_out; /* (M, hidden) */
    struct tr_place back_scratch;
    /* Of the adapter at hand, f32: a matrix's input and output (M, widest), A's output and its
     * gradient (M, rank). */
    struct tr_place lora_x, lora_y, lora_h, lora_dh;
    /* Weight gradients (invariant 4): of one tensor; with several micro-batches of one layer, or of
     * one part where blocks stream part by part; of a group's units; or all. */
    struct tr_place grad;
    struct tr_place norm_grad; /* (hidden) the final norm's */
    struct tr_place head_x;    /* (grain, hidden) compute dtype: normed input of the head */
    struct tr_place head_rstd; /* (N) */
    /* (grain or logit_rows, slice rows) f32; fused: also (N, TR_FUSED_ROWS) */
    struct tr_place logits;
    struct tr_place dlogits;  /* the same in the compute dtype; f32: the logits' own place */
    struct tr_place gathered; /* (logit_rows, hidden) storage dtype */
    struct tr_place cache_first, cache_row; /* (N) where a token's sequence lies in the cache */
    struct tr_place cache; /* (layers, k and v, cache_tokens, kv_heads, head_dim) compute dtype */
    struct tr_place sumsq; /* f64, one for each tensor or slice */
    struct tr_place sums, factor; /* AdaLomo's, of the tensor at hand: see TR_OP_ADALOMO_SUM */
    uint64_t peak;                /* bytes of the arena in use */
    uint64_t least;               /* where it does not fit the arena: a budget that would do */

    /* Apart: in pinned host memory, where the pools of state lie as well; each twice, for what is
     * on its way while the other is worked on. */
    struct tr_place host_grads, host_weights, host_sums, host_factor;
    uint64_t host_bytes;
};

/* -ENOMEM: the device is too small; the message says the smallest budget that would do. Where only
 * the host is, that is for the caller to refuse, who knows what else it holds: then host_bytes is
 * the least that would do, and more than host_budget. */
int tr_plan_make(struct tr_plan *plan, const struct tr_plan_params *p);

uint32_t tr_plan_boundaries(const struct tr_plan *plan); /* how many */
uint32_t tr_plan_scratch(const struct tr_plan *plan);    /* boundaries and frames */
/* The layout's spans, then one for each boundary, then one for each frame that is kept, for
 * schedules; freed with tr_free(TR_MEM_MISC, ...). NULL: out of memory. */
struct tr_span *tr_plan_spans(const struct tr_plan *plan, uint32_t *n_spans);

int tr_plan_keeps(const struct tr_plan *plan, int layer);
/* Does xn2 of this block not stay (struct tr_frame)? */
int tr_plan_remakes(const struct tr_plan *plan, int layer);
/* Apart: do the slots of this pool lie in host memory? */
int tr_plan_is_host_pool(const struct tr_plan *plan, int pool);
/* Apart: more slots for state, in so many bytes more of host memory. */
void tr_plan_grow_host(struct tr_plan *plan, uint64_t bytes);
/* The pool whose slots the spans of a pool go to. */
int tr_plan_pool(const struct tr_plan *plan, int pool);
/* How many pools from this one on get slots together: those of a block's parts. */
int tr_plan_pools_with(int pool);
/* Offset in the arena of a block's kept keys, or values. */
uint64_t tr_plan_cache(const struct tr_plan *plan, int layer, int values);
/* Does the pool spare what was used last (offload.h)? Parameters and block inputs are used on the
 * way up and down: what they are loaded over has been written long before. */
int tr_plan_spares(int pool);

/* Floats that a gradient takes among others: the next one begins at a cache line, too. */
static inline uint64_t tr_grad_room(uint64_t floats)
{
    return tr_round_up(floats, 16);
}

/* Offset of a block tensor's gradient in plan->grad. */
uint64_t tr_plan_grad(const struct tr_plan *plan, const struct tr_block *block, enum tr_role role);
/* The same of a table's slice that begins at row0. */
uint64_t tr_plan_table_grad(const struct tr_plan *plan, const struct tr_tensor *table,
                            int64_t row0);

/* Rows "kind: bytes" of the memory table; returns how many. Text into text[i]. */
#define TR_PLAN_ROWS 16
struct tr_plan_row {
    char kind[64];
    uint64_t bytes;
};
int tr_plan_table(const struct tr_plan *plan, struct tr_plan_row rows[TR_PLAN_ROWS]);
json_t *tr_plan_table_json(const struct tr_plan *plan); /* a list; NULL without memory */

#endif
