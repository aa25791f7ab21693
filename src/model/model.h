/* SPDX-License-Identifier: Apache-2.0
 *
 * The model as a table: units (embedding, blocks, head), their tensors with names, shapes and
 * roles, and where each tensor lies in the store. This is the only place that maps names to roles.
 *
 * A block is cut into parts, each a span of its parameters and one of its optimizer state: a large
 * matrix, and the small tensors that are needed when it is. They lie in the order in which the
 * forward pass needs them, so a block can be read whole, front to back, or matrix by matrix. Which
 * tensors share a part is a matter of invariant 5 as well: what the backward pass of a part still
 * needs is in the part, or in one that comes later backwards. A table (embedding, lm_head) is cut
 * into slices of rows, each a span, so that a large vocabulary costs no more device memory than a
 * small one. The final norm is a span of its own. The slice is a function of shapes alone: a
 * multiple of 256 rows, at most 4096 rows, 64 MiB in f32, and an eighth of the vocabulary. A tied
 * table belongs to the embedding unit.
 *
 * Disk order: embedding params [slice...], embedding state [slice...], block 0 params [part...],
 * block 0 state [part...], ..., final norm params, state, head params [slice...], state [slice...].
 * Where gradients wait for their norm beyond the step's end (src/train/pending.c), each unit has a
 * third segment for them behind its state, span by span as its parameters; where nothing of a span
 * trains there is none.
 *
 * Low-rank adapters (src/model/lora.h) are tensors of a block like others, but of records of their
 * own, behind all others: they change while the block they belong to does not. Those of a part and
 * their optimizer state, and gradients that wait, are one span, for they are small and stay on the
 * device.
 */
#ifndef TR_SRC_MODEL_MODEL_H
#define TR_SRC_MODEL_MODEL_H

#include "offload/store.h"
#include "src/model/config.h"
#include "src/model/lora.h"
#include "src/model/state.h"

enum tr_role {
    TR_ROLE_EMBED,
    TR_ROLE_NORM1, /* input_layernorm */
    TR_ROLE_Q,
    TR_ROLE_Q_BIAS,
    TR_ROLE_Q_NORM,
    TR_ROLE_K,
    TR_ROLE_K_BIAS,
    TR_ROLE_K_NORM,
    TR_ROLE_V,
    TR_ROLE_V_BIAS,
    TR_ROLE_O,
    TR_ROLE_O_BIAS,
    TR_ROLE_NORM2, /* post_attention_layernorm */
    TR_ROLE_GATE,
    TR_ROLE_UP,
    TR_ROLE_DOWN,
    TR_ROLE_FINAL_NORM,
    TR_ROLE_HEAD,
    TR_ROLES_BASE,
    TR_ROLE_LORA = TR_ROLES_BASE, /* A of the first target, B of it, A of the second ... */
    TR_ROLES = TR_ROLE_LORA + 2 * TR_LORA_TARGETS
};

/* The parts of a block, in the order of the forward pass. Each is the work of one stage of it. */
enum tr_part {
    TR_PART_KV, /* norm1, k, v, their biases and norms */
    TR_PART_Q,
    TR_PART_O,
    TR_PART_UP, /* norm2, up */
    TR_PART_GATE,
    TR_PART_DOWN,
    TR_PARTS
};

/* Slot pools: which spans share slots (all spans of a pool have the same size, or nearly). Each
 * part of a block has its own; the plan may give all of them the slots of the first. */
enum tr_slots {
    TR_SLOTS_BLOCK, /* + part */
    TR_SLOTS_TABLE = TR_SLOTS_BLOCK + TR_PARTS,
    TR_SLOTS_NORM,
    TR_SLOTS_BLOCK_STATE, /* + part */
    TR_SLOTS_TABLE_STATE = TR_SLOTS_BLOCK_STATE + TR_PARTS,
    TR_SLOTS_NORM_STATE,
    TR_SLOTS_BLOCK_PARKED, /* + part */
    TR_SLOTS_TABLE_PARKED = TR_SLOTS_BLOCK_PARKED + TR_PARTS,
    TR_SLOTS_NORM_PARKED,
    TR_SLOTS_ADAPTER,  /* as many as there are spans: adapters stay */
    TR_SLOTS_BOUNDARY, /* inputs of blocks: scratch, not in the store (src/plan/plan.h) */
    TR_SLOTS_FRAME,    /* activations that blocks keep: scratch, too */
    TR_SLOT_POOLS
};

/* What gradients are kept as until the next step applies them. */
enum tr_parked { TR_PARKED_NONE, TR_PARKED_F32, TR_PARKED_BF16, TR_PARKED_KINDS };

struct tr_tensor {
    char *name; /* as in the source checkpoint: "model.layers.3.self_attn.q_proj.weight" */
    enum tr_role role;
    int32_t layer;       /* of a block's tensor; -1 otherwise */
    int32_t dims;        /* 1 or 2 */
    int64_t rows, cols;  /* (rows, cols); 1-D: rows = 1 */
    enum tr_dtype dtype; /* in the store */
    uint64_t bytes;
    int frozen;                     /* stays as it is (src/model/freeze.h) */
    uint64_t first_param;           /* index of its first element among all parameters */
    uint64_t first_trained;         /* the same among those that train */
    uint32_t first_piece, n_pieces; /* of its params, consecutive in the layout */
    uint64_t offset;                /* in its params span; tables: 0 */
    uint64_t m_offset, v_offset;    /* its state's parts in the span; tables: 0, see tr_slice */
    uint64_t master_offset;         /* its master behind them; tables: 0 */
    uint32_t first_master_piece;    /* of it, consecutive; tables: 0 */
    uint64_t g_offset;              /* its parked gradient in the span; tables: 0 */
};

static inline int tr_is_adapter(const struct tr_tensor *t)
{
    return t->role >= TR_ROLE_LORA;
}

struct tr_block {
    uint32_t params_span[TR_PARTS];
    uint32_t state_span[TR_PARTS], parked_span[TR_PARTS]; /* TR_NONE where nothing of it trains */
    uint32_t adapter_span[TR_PARTS]; /* TR_NONE where the part has no adapter */
    int32_t tensor[TR_ROLES];        /* index into tensors, -1 where the family has none */
};

/* A table's slice: rows [row0, row0 + rows) of the vocabulary. */
struct tr_slice {
    int64_t row0, rows;
    uint32_t params_span, state_span, parked_span;
    uint64_t v_offset, master_offset; /* of the second part in the state span; the first is at 0 */
    uint32_t first_master_piece;
};

struct tr_table {
    int32_t tensor; /* -1: none (the head of a tied model) */
    int32_t n_slices;
    struct tr_slice *slices;
};

struct tr_model {
    struct tr_model_config config;
    enum tr_dtype dtype;      /* of the embedding, and so of block-boundary activations */
    enum tr_state_kind state; /* the optimizer's, as laid out */
    enum tr_master master; /* what trained tensors have beside their weights (src/model/master.h) */
    int has_state;         /* there is any, of the optimizer or of masters */
    enum tr_parked parked; /* gradients have places in the store, of this type */
    struct tr_tensor *tensors;   /* in the order of units, of a block's roles */
    int32_t n_tensors, n_base;   /* the first n_base are the model's own, the others adapters' */
    struct tr_table embed, head; /* tied: head.tensor is -1 and the embed table serves both */
    struct tr_block *blocks;     /* (config.layers) */
    int32_t final_norm;          /* tensor */
    uint32_t final_norm_span, final_norm_state_span, final_norm_parked_span;
    struct tr_layout layout;
    uint64_t n_params, n_trained; /* adapters are no parameters of the model, but they train */
    char *freeze;                 /* patterns of what is frozen; NULL: nothing */
    struct tr_lora lora;
};

struct tr_model_params {
    const struct tr_model_config *config;
    const enum tr_dtype *dtypes; /* [TR_ROLES] storage dtype by role */
    enum tr_state_kind state;
    int tied_as_head;   /* the tied table is called lm_head.weight in the source */
    const char *freeze; /* patterns, or NULL */
    enum tr_parked parked;
    enum tr_master master;
    struct tr_lora lora;
};

/* Lays the model out; pure function of its arguments. */
int tr_model_open(struct tr_model **out, const struct tr_model_params *p);
/* The same model, with what a run adds to a source: state, masters, what is frozen (of `p` no
 * more); tr_model_park: and with places for gradients. */
int tr_model_like(struct tr_model **out, const struct tr_model *m, const struct tr_model_params *p);
int tr_model_park(struct tr_model **out, const struct tr_model *m, enum tr_parked parked);
/* And with adapters. */
int tr_model_adapt(struct tr_model **out, const struct tr_model *m, const struct tr_lora *lora);
/* Whether there is anything of it but weights: state or a master. */
int tr_model_keeps(const struct tr_model *m, const struct tr_tensor *t);
/* What the optimizer keeps of a tensor. */
enum tr_state_kind tr_model_state(const struct tr_model *m, const struct tr_tensor *t);
enum tr_dtype tr_parked_dtype(enum tr_parked parked);
const char *tr_parked_name(enum tr_parked parked);
int tr_parked_parse(const char *name, enum tr_parked *parked); /* -EINVAL: no such */
void tr_model_close(struct tr_model *m);                       /* NULL is allowed */
/* The part of a block that a role of its tensors belongs to. */
enum tr_part tr_model_part(enum tr_role role);
/* The storage dtype of each role; roles that the family does not have get m->dtype. */
void tr_model_types(const struct tr_model *m, enum tr_dtype types[TR_ROLES]);
int tr_model_tied_as_head(const struct tr_model *m);

const struct tr_tensor *tr_model_find(const struct tr_model *m, const char *name);
/* The table that the head multiplies with: the head's own, or the embedding's where tied. */
const struct tr_table *tr_model_head(const struct tr_model *m);

#endif
