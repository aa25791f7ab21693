/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/fields.h"

#define POINTER_CLASS 5 /* what __builtin_classify_type says of a pointer */

#define FIELD(type, member, ...)                                                                   \
    {                                                                                              \
        .name = #member, .at = offsetof(struct tr_op_##type, member),                              \
        .size = sizeof(((struct tr_op_##type *)0)->member),                                        \
        .pointer = __builtin_classify_type(((struct tr_op_##type *)0)->member) == POINTER_CLASS,   \
        __VA_ARGS__                                                                                \
    }

#define ON(kind)            (1u << TR_OP_##kind)
#define ON2(a, b)           (ON(a) | ON(b))
#define ON3(a, b, c)        (ON(a) | ON(b) | ON(c))
#define VALUE(type, member) FIELD(type, member, .in = 0)

static const struct field embed_fields[] = {
    FIELD(embed, table, .in = ON(EMBED)),
    VALUE(embed, dtype),
    VALUE(embed, row0),
    VALUE(embed, rows),
    VALUE(embed, cols),
    VALUE(embed, n),
    FIELD(embed, ids, .in = ON2(EMBED, EMBED_GRAD)),
    FIELD(embed, out, .out = ON(EMBED)),
    FIELD(embed, dy, .in = ON(EMBED_GRAD)),
    FIELD(embed, grad, .out = ON(EMBED_GRAD)),
    VALUE(embed, fused),
    VALUE(embed, lr),
};

static const struct field rmsnorm_fields[] = {
    FIELD(rmsnorm, x, .in = ON2(RMSNORM, RMSNORM_GRAD)),
    VALUE(rmsnorm, x_dtype),
    VALUE(rmsnorm, w_dtype),
    FIELD(rmsnorm, w, .in = ON2(RMSNORM, RMSNORM_GRAD)),
    FIELD(rmsnorm, y, .out = ON(RMSNORM)),
    FIELD(rmsnorm, rstd, .in = ON(RMSNORM_GRAD), .out = ON(RMSNORM)),
    VALUE(rmsnorm, rows),
    VALUE(rmsnorm, cols),
    VALUE(rmsnorm, eps),
    VALUE(rmsnorm, y_dtype),
    FIELD(rmsnorm, dy, .in = ON(RMSNORM_GRAD)),
    FIELD(rmsnorm, dx, .out = ON(RMSNORM_GRAD)),
    FIELD(rmsnorm, dw, .sum = ON(RMSNORM_GRAD)),
    VALUE(rmsnorm, add_dx),
    VALUE(rmsnorm, add_dw),
    VALUE(rmsnorm, grains),
    VALUE(rmsnorm, rows_per_token),
};

static const struct field matmul_fields[] = {
    FIELD(matmul, w, .in = ON2(MATMUL, MATMUL_DX)),
    VALUE(matmul, w_dtype),
    FIELD(matmul, bias, .in = ON(MATMUL)),
    VALUE(matmul, in_dtype),
    VALUE(matmul, out_dtype),
    FIELD(matmul, x, .in = ON2(MATMUL, MATMUL_DW)),
    FIELD(matmul, y, .out = ON(MATMUL)),
    FIELD(matmul, dy, .in = ON2(MATMUL_DX, MATMUL_DW)),
    FIELD(matmul, dx, .out = ON(MATMUL_DX)),
    FIELD(matmul, dw, .sum = ON(MATMUL_DW)),
    VALUE(matmul, n),
    VALUE(matmul, m),
    VALUE(matmul, k),
    VALUE(matmul, add),
    VALUE(matmul, fused),
    VALUE(matmul, lr),
    VALUE(matmul, grains),
};

static const struct field bias_grad_fields[] = {
    FIELD(bias_grad, dy, .in = ON(BIAS_GRAD)),
    VALUE(bias_grad, dtype),
    FIELD(bias_grad, db, .sum = ON(BIAS_GRAD)),
    VALUE(bias_grad, n),
    VALUE(bias_grad, m),
    VALUE(bias_grad, add),
    VALUE(bias_grad, grains),
};

static const struct field rope_fields[] = {
    FIELD(rope, x, .out = ON(ROPE)),
    VALUE(rope, dtype),
    FIELD(rope, position, .in = ON(ROPE)),
    FIELD(rope, cos, .in = ON(ROPE)),
    FIELD(rope, sin, .in = ON(ROPE)),
    VALUE(rope, n),
    VALUE(rope, heads),
    VALUE(rope, head_dim),
    VALUE(rope, inverse),
};

#define BOTH ON2(ATTENTION, ATTENTION_GRAD)
#define GRAD ON(ATTENTION_GRAD)

static const struct field attention_fields[] = {
    VALUE(attention, dtype),
    FIELD(attention, q, .in = BOTH),
    FIELD(attention, k, .in = BOTH),
    FIELD(attention, v, .in = BOTH),
    FIELD(attention, o, .in = GRAD, .out = ON(ATTENTION)),
    FIELD(attention, lse, .in = GRAD, .out = ON(ATTENTION)),
    VALUE(attention, n),
    VALUE(attention, heads),
    VALUE(attention, kv_heads),
    VALUE(attention, head_dim),
    VALUE(attention, window),
    VALUE(attention, scale),
    VALUE(attention, docs),
    FIELD(attention, doc_first, .in = BOTH),
    FIELD(attention, doc_end, .in = BOTH),
    FIELD(attention, d_o, .in = GRAD),
    FIELD(attention, dq, .out = GRAD),
    FIELD(attention, dk, .out = GRAD),
    FIELD(attention, dv, .out = GRAD),
    FIELD(attention, delta, .scratch = GRAD),
};

static const struct field attention_cached_fields[] = {
    VALUE(attention_cached, dtype),
    FIELD(attention_cached, q, .in = ON(ATTENTION_CACHED)),
    FIELD(attention_cached, k, .in = ON(ATTENTION_CACHED)),
    FIELD(attention_cached, v, .in = ON(ATTENTION_CACHED)),
    FIELD(attention_cached, o, .out = ON(ATTENTION_CACHED)),
    FIELD(attention_cached, k_cache, .out = ON(ATTENTION_CACHED)),
    FIELD(attention_cached, v_cache, .out = ON(ATTENTION_CACHED)),
    FIELD(attention_cached, first, .in = ON(ATTENTION_CACHED)),
    FIELD(attention_cached, row, .in = ON(ATTENTION_CACHED)),
    VALUE(attention_cached, n),
    VALUE(attention_cached, heads),
    VALUE(attention_cached, kv_heads),
    VALUE(attention_cached, head_dim),
    VALUE(attention_cached, window),
    VALUE(attention_cached, scale),
};

static const struct field swiglu_fields[] = {
    VALUE(swiglu, dtype),
    FIELD(swiglu, gate, .in = ON2(SWIGLU, SWIGLU_GRAD)),
    FIELD(swiglu, up, .in = ON2(SWIGLU, SWIGLU_GRAD)),
    FIELD(swiglu, out, .out = ON(SWIGLU)),
    FIELD(swiglu, dout, .in = ON(SWIGLU_GRAD)),
    FIELD(swiglu, dgate, .out = ON(SWIGLU_GRAD)),
    FIELD(swiglu, dup, .out = ON(SWIGLU_GRAD)),
    VALUE(swiglu, n),
};

static const struct field add_fields[] = {
    FIELD(add, a, .in = ON(ADD)),    VALUE(add, a_dtype),
    VALUE(add, out_dtype),           FIELD(add, b, .in = ON(ADD)),
    FIELD(add, out, .out = ON(ADD)), VALUE(add, n),
};

static const struct field xent_fields[] = {
    FIELD(xent, logits, .in = ON2(XENT, XENT_GRAD)),
    VALUE(xent, n),
    VALUE(xent, row0),
    VALUE(xent, rows),
    VALUE(xent, first),
    FIELD(xent, targets, .in = ON3(XENT, XENT_LOSS, XENT_GRAD)),
    FIELD(xent, max, .in = ON(XENT_LOSS), .out = ON(XENT)),
    FIELD(xent, sum, .in = ON(XENT_LOSS), .out = ON(XENT)),
    FIELD(xent, target_logit, .in = ON(XENT_LOSS), .out = ON(XENT)),
    FIELD(xent, lse, .in = ON(XENT_GRAD), .out = ON(XENT_LOSS)),
    FIELD(xent, nll, .out = ON(XENT_LOSS)),
    FIELD(xent, scale, .in = ON(XENT_GRAD)),
    FIELD(xent, dlogits, .out = ON(XENT_GRAD)),
    VALUE(xent, dtype),
};

static const struct field cast_fields[] = {
    FIELD(cast, from, .in = ON(CAST)), VALUE(cast, from_dtype), VALUE(cast, to_dtype),
    FIELD(cast, to, .out = ON(CAST)),  VALUE(cast, n),
};

static const struct field sumsq_fields[] = {
    FIELD(sumsq, x, .in = ON(SUMSQ)),
    VALUE(sumsq, n),
    FIELD(sumsq, out, .sum = ON(SUMSQ)),
};

static const struct field round_fields[] = {
    FIELD(round, x, .out = ON(ROUND)),
    VALUE(round, n),
    VALUE(round, dtype),
};

#define ADAMS   ON2(ADAMW, ADAM_MINI)
#define UPDATES (ADAMS | ON3(SGD, MOMENTUM, ADALOMO))

static const struct field update_fields[] = {
    FIELD(update, w, .in = ON(ADALOMO_SUM), .out = UPDATES),
    VALUE(update, dtype),
    VALUE(update, master_kind),
    FIELD(update, master, .in = ON(ADALOMO_SUM), .out = UPDATES),
    FIELD(update, g, .in = UPDATES | ON(ADALOMO_SUM)),
    FIELD(update, m, .in = ON(ADALOMO), .out = ADAMS | ON2(MOMENTUM, ADALOMO_SUM)),
    FIELD(update, v, .out = ADAMS | ON(ADALOMO_FACTOR)),
    VALUE(update, state_dtype),
    FIELD(update, sums, .in = ON(ADALOMO_FACTOR), .out = ON(ADALOMO_SUM)),
    FIELD(update, factor, .in = ON(ADALOMO), .out = ON(ADALOMO_FACTOR)),
    VALUE(update, n),
    VALUE(update, first),
    VALUE(update, block),
    VALUE(update, factored),
    VALUE(update, add),
    VALUE(update, unscale),
    VALUE(update, clip_value),
    VALUE(update, coefficient),
    VALUE(update, lr),
    VALUE(update, weight_decay),
    VALUE(update, beta1),
    VALUE(update, beta2),
    VALUE(update, eps),
    VALUE(update, eps2),
    VALUE(update, step_size),
    VALUE(update, sqrt_bias2),
    VALUE(update, rounding),
    VALUE(update, step),
    VALUE(update, seed),
    VALUE(update, name),
};

#define KIND(kind, type)                                                                           \
    [TR_OP_##kind] = {type##_fields, sizeof(type##_fields) / sizeof(type##_fields[0]),             \
                      sizeof(struct tr_op_##type), #kind}

static const struct field_list lists[TR_OP_KINDS] = {
    KIND(EMBED, embed),
    KIND(EMBED_GRAD, embed),
    KIND(RMSNORM, rmsnorm),
    KIND(RMSNORM_GRAD, rmsnorm),
    KIND(MATMUL, matmul),
    KIND(MATMUL_DX, matmul),
    KIND(MATMUL_DW, matmul),
    KIND(BIAS_GRAD, bias_grad),
    KIND(ROPE, rope),
    KIND(ATTENTION, attention),
    KIND(ATTENTION_GRAD, attention),
    KIND(ATTENTION_CACHED, attention_cached),
    KIND(SWIGLU, swiglu),
    KIND(SWIGLU_GRAD, swiglu),
    KIND(ADD, add),
    KIND(XENT, xent),
    KIND(XENT_LOSS, xent),
    KIND(XENT_GRAD, xent),
    KIND(CAST, cast),
    KIND(SUMSQ, sumsq),
    KIND(ROUND, round),
    KIND(SGD, update),
    KIND(ADAMW, update),
    KIND(MOMENTUM, update),
    KIND(ADAM_MINI, update),
    KIND(ADALOMO_SUM, update),
    KIND(ADALOMO_FACTOR, update),
    KIND(ADALOMO, update),
};

const struct field_list *field_list(enum tr_op_kind kind)
{
    return &lists[kind];
}

enum field_use field_use(const struct field *f, enum tr_op_kind kind)
{
    uint32_t bit = 1u << kind;

    return f->in & bit        ? FIELD_IN
           : f->out & bit     ? FIELD_OUT
           : f->sum & bit     ? FIELD_SUM
           : f->scratch & bit ? FIELD_SCRATCH
                              : FIELD_UNUSED;
}

enum tr_dtype field_dtype(const struct tr_op *op)
{
    switch (op->kind) {
    case TR_OP_EMBED:
        return op->embed.dtype;
    case TR_OP_RMSNORM:
    case TR_OP_RMSNORM_GRAD:
        return op->rmsnorm.y_dtype;
    case TR_OP_MATMUL:
    case TR_OP_MATMUL_DX:
    case TR_OP_MATMUL_DW:
        return op->matmul.in_dtype;
    case TR_OP_BIAS_GRAD:
        return op->bias_grad.dtype;
    case TR_OP_ROPE:
        return op->rope.dtype;
    case TR_OP_ATTENTION:
    case TR_OP_ATTENTION_GRAD:
        return op->attention.dtype;
    case TR_OP_ATTENTION_CACHED:
        return op->attention_cached.dtype;
    case TR_OP_SWIGLU:
    case TR_OP_SWIGLU_GRAD:
        return op->swiglu.dtype;
    case TR_OP_ADD:
        return op->add.out_dtype;
    case TR_OP_XENT_GRAD:
        return op->xent.dtype;
    case TR_OP_CAST:
        return op->cast.to_dtype;
    case TR_OP_ROUND:
        return op->round.dtype;
    case TR_OP_SGD:
    case TR_OP_ADAMW:
    case TR_OP_MOMENTUM:
    case TR_OP_ADAM_MINI:
    case TR_OP_ADALOMO_SUM:
    case TR_OP_ADALOMO:
        return op->update.dtype;
    default:
        return TR_F32;
    }
}

const char *field_list_fault(const struct field_list *list)
{
    size_t end = 0;

    if (list->n == 0)
        return "a kind of op has no list";
    for (size_t i = 0; i <= list->n; i++) {
        const struct field *f = i < list->n ? &list->fields[i] : NULL;
        size_t at = f ? f->at : list->bytes;

        if (at < end)
            return "fields are not in the order of the struct";
        if (at - end >= sizeof(void *)) /* padding is shorter than a pointer */
            return "a field is missing";
        if (f && !f->pointer != !(f->in | f->out | f->sum | f->scratch))
            return "a pointer without use, or a use of what is no pointer";
        end = f ? at + f->size : end;
    }
    return NULL;
}
