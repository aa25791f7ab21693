/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens at one visit: the ops of a unit are queued on the compute stream, for all
 * micro-batches of the step (layer-major). Nothing here waits, knows a disk or a slot: the spans of
 * the visit lie at `at`, everything else where the plan has put it.
 *
 * forward.c: embedding and blocks. head.c: the loss by vocabulary slices, its gradient, the tables'
 * gradients. backward.c: blocks. adapter.c: what adapters add to both. update.c: what becomes of a
 * finished weight gradient.
 */
#ifndef TR_SRC_TRAIN_PASS_H
#define TR_SRC_TRAIN_PASS_H

#include "src/base/device.h"
#include "src/plan/plan.h"
#include "src/plan/visits.h"
#include "src/tailrace.h"
#include "src/text/data.h"

/* Consecutive whole grains of the batch; the ranges count from its first token. */
struct tr_micro {
    int32_t first_token, n_tokens;
    struct tr_ranges grains, docs;
};

/* What the update of this step is made of. */
struct tr_update {
    enum tr_optimizer optimizer;
    double lr, beta1, beta2; /* beta1 of sgd: the momentum */
    float weight_decay, clip_value;
    float coefficient; /* of the global-norm clip; 1 without it */
    float unscale;     /* 1 / loss scale */
    float eps;
    enum tr_rounding rounding;
    uint64_t t; /* optimizer step, first is 1 */
    uint32_t seed;
    uint32_t *names; /* (n_tensors) hash of each tensor's name */
};

/* What of it is the adapters' own, where the model is trained beside them. */
struct tr_adapter_update {
    int is;
    enum tr_optimizer optimizer;
    double lr, beta1;
    float coefficient;
    unsigned char *measured; /* (entries of the norms) made by an adapter's gradient; or NULL */
};

/* Generation: what becomes of the keys and values of a batch. */
enum tr_pass_cache_use {
    TR_CACHE_NONE,
    TR_CACHE_FILL, /* whole sequences, whose keys and values are kept */
    TR_CACHE_GROW, /* tokens that follow sequences in the cache */
};
struct tr_pass_cache {
    enum tr_pass_cache_use use;
    const int32_t *first, *row; /* (n_tokens) host: see TR_OP_ATTENTION_CACHED */
};

struct tr_apart;

struct tr_pass_state {
    struct tr_device *device;
    const struct tr_model *model;
    const struct tr_plan *plan;
    char *arena;
    const struct tr_batch *batch; /* host side; its arrays live until the step's last sync */
    struct tr_micro *micro;       /* (n_micro) */
    int n_micro;
    int32_t *ranges;         /* storage of all ranges */
    struct tr_ranges *grain; /* (n_grains) each grain of the batch as a range of its own */
    struct tr_update update;
    struct tr_adapter_update adapter;
    float drop;         /* share of the adapters' inputs that a training step leaves out */
    float dropout;      /* the same in such a step; else 0 */
    uint64_t drop_step; /* which of them follows from; an update at hand may be of the one before */
    struct tr_pass_cache cache;
    struct tr_apart *apart; /* updates run on the cpu (src/train/apart.h); NULL: on the device */
    uint32_t n_sumsq;       /* entries of the norms that have been queued so far */
    const struct tr_pass_visit *visit;
};

/* The visit at hand. */
struct tr_pass_visit {
    struct tr_unit_visit unit;
    const struct tr_visit *spans;
    void *at[TR_VISIT_SPANS]; /* of each of its spans */
};

/* Cuts the batch into micro-batches and copies it to the device. */
int tr_pass_batch(struct tr_pass_state *p, const struct tr_batch *batch, float loss_scale);
void tr_pass_free(struct tr_pass_state *p);

/* Queues all compute of one visit. */
int tr_pass_run(struct tr_pass_state *p, const struct tr_pass_visit *v);

/* --- between the files of the pass ---------------------------------------------------------- */

/* The dtype in which the device computes this model. */
static inline enum tr_dtype pass_compute(const struct tr_pass_state *p)
{
    return p->plan->in.compute;
}

static inline int pass_op(const struct tr_pass_state *p, const struct tr_op *op)
{
    return p->device->ops->run(p->device, TR_STREAM_COMPUTE, op);
}

static inline void *pass_at(const struct tr_pass_state *p, const struct tr_place *place)
{
    return p->arena + place->offset;
}

/* f32 rows of a (N, width) array from the micro-batch's first token on. */
static inline float *pass_rows(const struct tr_pass_state *p, const struct tr_place *place,
                               int64_t token, int64_t width)
{
    return (float *)pass_at(p, place) + token * width;
}

/* The input of block `layer` (layer == layers: the last output), storage dtype, from `token` on:
 * where the visit at hand has it. */
void *pass_boundary(const struct tr_pass_state *p, int layer, int64_t token);

/* Activations of one block and micro-batch: pointers into a frame. */
struct pass_frame {
    void *xn1, *q, *k, *v, *q_raw, *k_raw, *o, *xn2, *gate, *up; /* compute dtype */
    void *dgate, *dup, *dq, *dk, *dv; /* in the shared frame, also where the others are kept */
    float *rstd1, *rstd_q, *rstd_k, *lse, *x_mid, *rstd2;
    float *dxn; /* part by part alone */
};
struct pass_frame pass_frame(const struct tr_pass_state *p, int layer, const struct tr_micro *u);

/* Where the visit has this span; NULL: it has not, as TR_NONE. The second where it must. */
char *pass_find(const struct tr_pass_visit *v, uint32_t span);
char *pass_span(const struct tr_pass_visit *v, uint32_t span);
/* A block's weights in the slot of their part; NULL where the family has none. */
void *pass_weight(const struct tr_pass_state *p, const struct tr_pass_visit *v, enum tr_role r);
/* The slot of the optimizer state that belongs to them; only where the visit updates. */
char *pass_block_state(const struct tr_pass_state *p, const struct tr_pass_visit *v,
                       enum tr_role r);
/* And of the gradient that is kept for the next step; only where it is made or applied. */
char *pass_block_parked(const struct tr_pass_visit *v, const struct tr_model *m, enum tr_role r);

/* A matrix of the visit's block with what goes in and comes out of it, and its gradients. */
struct pass_linear {
    const struct tr_pass_visit *v;
    const struct tr_micro *u;
    enum tr_role role;
    enum tr_dtype y_dtype, dx_dtype;
    const void *x, *dy; /* compute dtype */
    void *y, *dx;       /* added to */
    float *dw;          /* of A or B */
    int add;            /* to dw */
};
/* Its adapter's target; -1: it has none. */
int pass_adapter(const struct tr_pass_state *p, const struct tr_pass_visit *v, enum tr_role r);
/* What the adapter adds to the matrix's product and to its input's gradient (adapter.c). */
int pass_adapter_forward(const struct tr_pass_state *p, const struct pass_linear *l);
int pass_adapter_dx(const struct tr_pass_state *p, const struct pass_linear *l);
/* The gradient of B, then that of A: between the two B may be updated, and nothing else done. */
int pass_adapter_db(const struct tr_pass_state *p, const struct pass_linear *l);
int pass_adapter_da(const struct tr_pass_state *p, const struct pass_linear *l);

int pass_embed(struct tr_pass_state *p, const struct tr_pass_visit *v);
int pass_block(struct tr_pass_state *p, const struct tr_pass_visit *v);
/* Forward of one micro-batch through the visit's block, from its first part to `to`. */
int pass_block_forward(struct tr_pass_state *p, const struct tr_pass_visit *v,
                       const struct tr_micro *u, enum tr_part to);
/* xn2 of a micro-batch again, where it has not stayed (struct tr_frame): for a visit of the up
 * matrix, which has the second norm's weight, or of the gate, which has what up_stage has left. */
int pass_remake_xn2(struct tr_pass_state *p, const struct tr_pass_visit *v,
                    const struct tr_micro *u);
/* The input of the last matmul is made again where it is needed: it is the largest activation. */
int pass_swiglu(const struct tr_pass_state *p, const struct tr_micro *u,
                const struct pass_frame *f);
/* The attention of a block and micro-batch, forward; the gradient adds its own fields. */
struct tr_op_attention pass_attention(const struct tr_pass_state *p, int layer,
                                      const struct tr_micro *u, const struct pass_frame *f);
/* The same where there is a cache. */
int pass_attend_cached(const struct tr_pass_state *p, int layer, const struct tr_micro *u,
                       const struct pass_frame *f);
/* Rotates queries or keys by their positions, in place; inverse: their gradients. */
int pass_rope(const struct tr_pass_state *p, const struct tr_micro *u, void *x, int64_t heads,
              int inverse);
int pass_block_grad(struct tr_pass_state *p, const struct tr_pass_visit *v);
int pass_block_update(struct tr_pass_state *p, const struct tr_pass_visit *v);
int pass_table_update(struct tr_pass_state *p, const struct tr_pass_visit *v);
int pass_norm_update(struct tr_pass_state *p, const struct tr_pass_visit *v);
int pass_head(struct tr_pass_state *p, const struct tr_pass_visit *v);
int pass_head_grad(struct tr_pass_state *p, const struct tr_pass_visit *v);
int pass_embed_grad(struct tr_pass_state *p, const struct tr_pass_visit *v);

/* f16 runs: the gradient at a block boundary is rounded to f16. */
int pass_round_boundary(const struct tr_pass_state *p, float *dx, int64_t n);

/* Does this visit update this tensor of its own? One that leaves its gradients to an update beside
 * the device does so with adapters, which are on the device for good. */
static inline int pass_updates(const struct tr_pass_state *p, const struct tr_unit_visit *u,
                               int32_t tensor)
{
    int adapter = tr_is_adapter(&p->model->tensors[tensor]);

    return adapter && u->left ? 0 : tr_unit_updates(u) || (adapter && u->leaves);
}

/* A weight gradient that is complete for this step: measured in the norm pass, applied in the
 * update pass (f16 runs: rounded to f16 first, so that overflow is real). */
struct pass_grad {
    int32_t tensor;
    float *grad;       /* (n); NULL: the update is done already, as a product */
    void *parked;      /* (n) in the model's type: where it waits for the next step; or NULL */
    void *weight;      /* (n) */
    float *m, *v;      /* its state, or NULL */
    void *master;      /* what stands beside it, or NULL */
    uint64_t first, n; /* elements of the tensor */
    /* Of a table that is summed before it is updated: parts of it have been summed, will be. */
    enum tr_sweep sweep;
    int goes_on, goes_further;
};
int pass_finish(struct tr_pass_state *p, const struct tr_unit_visit *u, const struct pass_grad *g);

#endif
