/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults planted behind the ops of a device, one at a time; the checks of the op must find each.
 * An op that does not run, one that writes before its result, one that changes an input, and those
 * that only the rules of invariant 1 can tell: sums whose grains are merged (every value is within
 * any tolerance), and a result whose first element is one bit off in whichever call it is the
 * first, so that a row's bits depend on where it lies.
 */
#include <stdio.h>

#include "tests/kernelcheck/fields.h"
#include "tests/kernelcheck/state.h"

static const struct {
    const char *op;
    void (*fn)(struct check *c);
} checks[TR_OP_KINDS] = {
    [TR_OP_EMBED] = {"embed", check_embed},
    [TR_OP_EMBED_GRAD] = {"embed", check_embed},
    [TR_OP_RMSNORM] = {"rmsnorm", check_rmsnorm},
    [TR_OP_RMSNORM_GRAD] = {"rmsnorm", check_rmsnorm},
    [TR_OP_MATMUL] = {"matmul", check_matmul},
    [TR_OP_MATMUL_DX] = {"matmul", check_matmul},
    [TR_OP_MATMUL_DW] = {"matmul", check_matmul},
    [TR_OP_BIAS_GRAD] = {"bias_grad", check_bias_grad},
    [TR_OP_ROPE] = {"rope", check_rope},
    [TR_OP_ATTENTION] = {"attention", check_attention},
    [TR_OP_ATTENTION_GRAD] = {"attention", check_attention},
    [TR_OP_ATTENTION_CACHED] = {"attention_cached", check_attention_cached},
    [TR_OP_SWIGLU] = {"swiglu", check_swiglu},
    [TR_OP_SWIGLU_GRAD] = {"swiglu", check_swiglu},
    [TR_OP_ADD] = {"add", check_add},
    [TR_OP_XENT] = {"xent", check_xent},
    [TR_OP_XENT_LOSS] = {"xent", check_xent},
    [TR_OP_XENT_GRAD] = {"xent", check_xent},
    [TR_OP_CAST] = {"cast", check_cast},
    [TR_OP_SUMSQ] = {"sumsq", check_sumsq},
    [TR_OP_ROUND] = {"round", check_round},
    [TR_OP_DROPOUT] = {"dropout", check_dropout},
    [TR_OP_SGD] = {"sgd", check_sgd},
    [TR_OP_ADAMW] = {"adamw", check_adamw},
    [TR_OP_MOMENTUM] = {"momentum", check_momentum},
    [TR_OP_ADAM_MINI] = {"adam_mini", check_adam_mini},
    [TR_OP_ADALOMO_SUM] = {"adalomo", check_adalomo},
    [TR_OP_ADALOMO_FACTOR] = {"adalomo", check_adalomo},
    [TR_OP_ADALOMO] = {"adalomo", check_adalomo},
};

static const char *const words[] = {
    [FAULT_SKIP] = "does not run",
    [FAULT_MERGE] = "merges grains",
    [FAULT_FLIP] = "flips a bit of",
    [FAULT_UNDER] = "writes before",
};

/* 1 if the fault happened at all. */
static int plant_dtype(struct check *c, const struct mirror_fault *fault)
{
    struct check_state *s = c->state;
    int found;

    /* Unless harness alone was asked for, all ops have run by now. */
    if (!s->options.op && !mirror_has_met(c->device, fault))
        return 0;
    c->device->fault = *fault;
    c->device->faults = 0;
    found = check_finds_fault(c, checks[fault->kind].op, checks[fault->kind].fn);
    c->device->fault = (struct mirror_fault){0};
    if (!c->device->faults)
        return 0;
    if (found)
        s->passed++;
    else
        s->failed++;
    if (!found)
        printf("FAIL harness: %s %s %s %s was not found out\n", field_list(fault->kind)->kind,
               tr_dtype_name(fault->dtype), words[fault->fault],
               fault->field ? fault->field->name : "");
    return 1;
}

/* In every dtype that the op comes in. Not to round to f32 is no fault. */
static void plant(struct check *c, enum fault_kind fault, enum tr_op_kind kind,
                  const struct field *f)
{
    int happened = 0;

    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++)
        if (fault != FAULT_SKIP || kind != TR_OP_ROUND || d != TR_F32)
            happened += plant_dtype(c, &(struct mirror_fault){fault, kind, d, f});
    if (happened)
        return;
    c->state->failed++;
    printf("FAIL harness: %s is never run with %s\n", field_list(kind)->kind, f ? f->name : "");
}

/* Sums have no row that could lie elsewhere, and the last bit of sumsq is nobody's business. */
static void plant_in(struct check *c, enum tr_op_kind kind, const struct field *f)
{
    enum field_use use = field_use(f, kind);

    if (use == FIELD_IN || use == FIELD_OUT)
        plant(c, FAULT_FLIP, kind, f);
    if (use == FIELD_OUT || use == FIELD_SUM || use == FIELD_SCRATCH)
        plant(c, FAULT_UNDER, kind, f);
    if (use == FIELD_SUM && kind != TR_OP_SUMSQ)
        plant(c, FAULT_MERGE, kind, NULL);
}

void check_planted(struct check *c)
{
    for (enum tr_op_kind kind = 0; kind < TR_OP_KINDS; kind++) {
        const struct field_list *list = field_list(kind);

        plant(c, FAULT_SKIP, kind, NULL);
        for (size_t i = 0; i < list->n; i++)
            plant_in(c, kind, &list->fields[i]);
    }
}
