/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of a finished weight gradient. The norm pass measures it before the value clip, the
 * update pass applies it at once: no gradient outlives its tensor (invariant 4). LOMO and plain SGD
 * are one update (they differ in whether a global norm is measured); AdamW keeps m and v beside it.
 *
 * Without a norm pass the update pass measures, too, for one more read of the gradient while it is
 * near: the sum tells after the last update whether all of the gradients were finite.
 */
#include "src/pass.h"

#include <math.h>

static int measure(struct tr_pass_state *p, const struct pass_grad *g)
{
    double *out = (double *)pass_at(p, &p->plan->sumsq) + p->n_sumsq++;

    return pass_op(p, &(struct tr_op){.kind = TR_OP_SUMSQ,
                                      .sumsq = {.x = g->grad, .n = (int64_t)g->n, .out = out}});
}

static int apply(struct tr_pass_state *p, const struct pass_grad *g)
{
    const struct tr_update *u = &p->update;
    struct tr_op op = {
        .kind = u->adamw ? TR_OP_ADAMW : TR_OP_SGD,
        .update = {.w = g->weight,
                   .dtype = p->model->tensors[g->tensor].dtype,
                   .g = g->grad,
                   .m = g->m,
                   .v = g->v,
                   .n = (int64_t)g->n,
                   .first = (int64_t)g->first,
                   .unscale = u->unscale,
                   .clip_value = u->clip_value,
                   .coefficient = u->coefficient,
                   .lr = (float)u->lr,
                   .weight_decay = u->weight_decay,
                   .beta1 = (float)u->beta1,
                   .beta2 = (float)u->beta2,
                   .eps = u->eps,
                   .rounding = u->rounding,
                   .step = u->t,
                   .seed = u->seed,
                   .name = u->names[g->tensor]},
    };

    if (op.update.dtype != TR_BF16)
        op.update.rounding = TR_ROUND_NEAREST;
    if (u->adamw) { /* of the betas as the kernels have them: f32 */
        op.update.step_size = (float)(u->lr / (1 - pow((float)u->beta1, (double)u->t)));
        op.update.sqrt_bias2 = (float)sqrt(1 - pow((float)u->beta2, (double)u->t));
    }
    return pass_op(p, &op);
}

int pass_finish(struct tr_pass_state *p, enum tr_pass pass, const struct pass_grad *g)
{
    int r = pass_round_boundary(p, g->grad, (int64_t)g->n);

    if (r < 0)
        return r;
    if (pass == TR_PASS_NORM || !p->plan->in.norm)
        r = measure(p, g);
    return r < 0 || pass == TR_PASS_NORM ? r : apply(p, g);
}
