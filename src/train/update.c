/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of a finished weight gradient. The norm pass measures it before the value clip, the
 * update pass applies it at once: no gradient outlives its tensor (invariant 4). LOMO and plain SGD
 * are one update (they differ in whether a global norm is measured); what others keep beside the
 * weights is handed to them as m, v (src/model/state.h) and master (src/model/master.h).
 *
 * Where it waits for the next step (src/train/pending.c) it is measured in f32, then kept in the
 * model's type, and applied as it was kept.
 *
 * Without a norm pass the update pass measures, too, for one more read of the gradient while it is
 * near: the sum tells after the last update whether all of the gradients were finite.
 *
 * An update of a visit of its own (src/plan/visits.h) has been measured and rounded by another one.
 */
#include "src/train/apart.h"

#include <math.h>

#include "src/model/master.h"

/* Of the gradient; of a fused update the weights, which are all that can tell. */
static int measure(struct tr_pass_state *p, const struct pass_grad *g)
{
    const float *x = g->grad ? g->grad : g->weight;
    double *out = (double *)pass_at(p, &p->plan->sumsq) + p->n_sumsq;

    if (p->adapter.measured)
        p->adapter.measured[p->n_sumsq] = tr_is_adapter(&p->model->tensors[g->tensor]);
    p->n_sumsq++;
    return pass_op(
        p, &(struct tr_op){.kind = TR_OP_SUMSQ, .sumsq = {.x = x, .n = (int64_t)g->n, .out = out}});
}

static enum tr_op_kind kind_of(const struct tr_update *u)
{
    switch (u->optimizer) {
    case TR_OPT_ADAMW:
        return TR_OP_ADAMW;
    case TR_OPT_ADAM_MINI:
        return TR_OP_ADAM_MINI;
    case TR_OPT_ADALOMO:
        return TR_OP_ADALOMO;
    case TR_OPT_SGD:
        return u->beta1 > 0 ? TR_OP_MOMENTUM : TR_OP_SGD;
    case TR_OPT_LOMO:
    case TR_OPT_DEFAULT:
        break;
    }
    return TR_OP_SGD;
}

/* Of the betas as the kernels have them: f32. */
static void correct_bias(struct tr_op_update *op, const struct tr_update *u)
{
    op->step_size = (float)(u->lr / (1 - pow((float)u->beta1, (double)u->t)));
    op->sqrt_bias2 = (float)sqrt(1 - pow((float)u->beta2, (double)u->t));
}

static int run_update(struct tr_pass_state *p, const struct pass_grad *g, const struct tr_op *op)
{
    int adapter = tr_is_adapter(&p->model->tensors[g->tensor]);

    return p->apart && !adapter ? tr_apart_update(p->apart, g, op) : pass_op(p, op);
}

/* Its decay of the second moment rises with time and begins at nothing: no bias to correct. The
 * exponent and both eps are its authors' defaults. */
static void set_adalomo(struct tr_pass_state *p, const struct pass_grad *g, struct tr_op_update *op)
{
    const struct tr_tensor *t = &p->model->tensors[g->tensor];
    double fresh = pow((double)p->update.t, -0.8);

    op->beta1 = (float)fresh;
    op->beta2 = (float)(1 - fresh);
    op->eps = 1e-30f;
    op->eps2 = 1e-3f;
    op->block = t->cols;
    op->factored = t->dims == 2;
    op->add = g->goes_on;
    op->sums = pass_at(p, &p->plan->sums);
    op->factor = pass_at(p, &p->plan->factor);
}

/* Sums of these rows; behind the last of them what follows for the whole tensor. */
static int sum_adalomo(struct tr_pass_state *p, const struct pass_grad *g, struct tr_op op)
{
    const struct tr_tensor *t = &p->model->tensors[g->tensor];
    int r;

    op.kind = TR_OP_ADALOMO_SUM;
    if ((r = run_update(p, g, &op)) < 0 || g->goes_further)
        return r;
    op.kind = TR_OP_ADALOMO_FACTOR;
    op.update.n = t->rows * t->cols;
    return run_update(p, g, &op);
}

/* Adapters may have an optimizer of their own. */
static struct tr_update update_of(const struct tr_pass_state *p, const struct tr_tensor *t)
{
    struct tr_update u = p->update;

    if (p->adapter.is && tr_is_adapter(t)) {
        u.optimizer = p->adapter.optimizer;
        u.lr = p->adapter.lr;
        u.beta1 = p->adapter.beta1;
        u.coefficient = p->adapter.coefficient;
    }
    return u;
}

static int apply(struct tr_pass_state *p, const struct pass_grad *g)
{
    const struct tr_tensor *t = &p->model->tensors[g->tensor];
    const struct tr_update own = update_of(p, t), *u = &own;
    int mastered = tr_master_has(p->model, t);
    struct tr_op op = {
        .kind = kind_of(u),
        .update = {.w = g->weight,
                   .dtype = t->dtype,
                   .master_kind = mastered ? p->model->master : TR_MASTER_NONE,
                   .master = mastered ? g->master : NULL,
                   .g = g->grad,
                   .m = g->m,
                   .state_dtype = tr_state_dtype(tr_model_state(p->model, t)),
                   .v = g->v,
                   .n = (int64_t)g->n,
                   .first = (int64_t)g->first,
                   .block = tr_state_block(&p->model->config, t),
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
    if (op.kind == TR_OP_ADAMW || op.kind == TR_OP_ADAM_MINI)
        correct_bias(&op.update, u);
    if (op.kind == TR_OP_ADAM_MINI && t->dims == 1) /* its authors decay neither norms nor biases */
        op.update.weight_decay = 0;
    if (op.kind == TR_OP_ADALOMO) {
        int r;

        set_adalomo(p, g, &op.update);
        r = g->sweep == TR_SWEEP_APPLY ? 0 : sum_adalomo(p, g, op);
        if (r < 0 || g->sweep == TR_SWEEP_SUM)
            return r;
    }
    return run_update(p, g, &op);
}

/* Between the place where a gradient is made or applied and the one where it waits for the next
 * step, which in f32 are the same but for the final norm's. */
static int move_parked(const struct tr_pass_state *p, const struct pass_grad *g, int in)
{
    enum tr_dtype type = tr_parked_dtype(p->model->parked);
    struct tr_op op = {.kind = TR_OP_CAST,
                       .cast = {.from = in ? (void *)g->grad : g->parked,
                                .from_dtype = in ? TR_F32 : type,
                                .to = in ? g->parked : (void *)g->grad,
                                .to_dtype = in ? type : TR_F32,
                                .n = (int64_t)g->n}};

    return !g->parked || g->parked == (void *)g->grad ? 0 : pass_op(p, &op);
}

int pass_finish(struct tr_pass_state *p, const struct tr_unit_visit *u, const struct pass_grad *g)
{
    int update = pass_updates(p, u, g->tensor), measures, r;

    if (p->model->tensors[g->tensor].frozen)
        return 0;
    if (!g->grad)
        return measure(p, g);
    if (update && g->parked) /* measured and rounded by the step before */
        return (r = move_parked(p, g, 0)) < 0 ? r : apply(p, g);
    if (u->work == TR_WORK_UPDATE)
        return apply(p, g);
    /* Each gradient once, where a table's slices are gone through twice. */
    measures = u->pass == TR_PASS_NORM || (!p->plan->in.norm && g->sweep != TR_SWEEP_APPLY);
    if ((r = pass_round_boundary(p, g->grad, (int64_t)g->n)) < 0 ||
        (measures && (r = measure(p, g)) < 0))
        return r;
    if (u->leaves && !update)
        return tr_apart_leave(p->apart, g);
    return update ? apply(p, g) : move_parked(p, g, 1);
}
