/* SPDX-License-Identifier: Apache-2.0
 *
 * THE STEP. The visits are walked in order: acquire waits until the unit's spans are in their
 * slots, the pass queues the unit's compute, release lets the engine write back what the visit
 * changes once the compute is done. Then the engine is told what follows, so that the next step's
 * loads overlap the end of this one, and when the device has done all of the step without an error,
 * the commit starts in the background.
 */
#include "src/run/run.h"

#include <math.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/infer/task_set.h"
#include "src/train/lr.h"

uint32_t run_visits(const struct tr_run *run, enum run_begun what, const struct tr_visits **v)
{
    *v = what == RUN_SETTLE                   ? &run->settle
         : what == RUN_TRAIN || !run->plain.n ? &run->visits
                                              : &run->plain;
    return what == RUN_FORWARD ? (*v)->forward : (*v)->n;
}

int run_begin(struct tr_run *run, enum run_begun what)
{
    const struct tr_visits *v;
    uint32_t n = run_visits(run, what, &v);
    int r;

    if (run->step.begun == what || what == RUN_NOTHING)
        return 0;
    r = tr_offload_begin(run->offload, v->spans, n, v->spans, n); /* much of the same follows */
    if (r == 0)
        run->step.begun = what;
    return r;
}

int run_queue(void *arg, const struct tr_pass_visit *v)
{
    struct tr_run *run = arg;

    return tr_pass_run(&run->pass, v);
}

int run_visit(struct tr_run *run, const struct tr_visits *list, uint32_t i, run_queue_fn *queue,
              void *arg)
{
    struct tr_pass_visit v = {.unit = list->units[i], .spans = &list->spans[i]};
    int r = tr_offload_acquire(run->offload, i, v.at);

    if (r == 0 && queue)
        r = queue(arg, &v);
    return r < 0 ? r : tr_offload_release(run->offload, i);
}

int run_walk(struct tr_run *run, enum run_begun what, run_queue_fn *queue, void *arg)
{
    const struct tr_visits *list;
    uint32_t n = run_visits(run, what, &list);
    int r = run_begin(run, what);

    for (uint32_t i = 0; i < n && r == 0; i++)
        r = run_visit(run, list, i, queue, arg);
    run->step.begun = RUN_NOTHING;
    return r;
}

static int sync_compute(struct tr_run *run)
{
    return run->device->ops->sync(run->device, TR_STREAM_COMPUTE);
}

static int copy_losses(struct tr_run *run)
{
    return run->device->ops->copy_out(run->device, TR_STREAM_COMPUTE, run->step.nll,
                                      run->pass.arena + run->plan.nll.offset,
                                      (size_t)run->pass.batch->n_tokens * 4);
}

/* Summed in f64 in token order: the same whatever the micro-batches. */
static double weighted_loss(const struct tr_run *run)
{
    const struct tr_batch *b = run->pass.batch;
    double sum = 0;

    for (int32_t t = 0; t < b->n_tokens; t++)
        sum += (double)b->weight[t] * (double)run->step.nll[t];
    return sum / b->weight_sum;
}

static int64_t count_targets(const struct tr_batch *b)
{
    int64_t n = 0;

    for (int32_t t = 0; t < b->n_tokens; t++)
        n += b->targets[t] >= 0;
    return n;
}

static float coefficient(double max, double norm)
{
    return max > 0 ? (float)fmin(1, max / (norm + 1e-6)) : 1;
}

/* When the norm pass is done. 0: go on, 1: overflow, this step updates nothing. */
static int clip(struct tr_run *run, double *norm)
{
    struct tr_pass_state *p = &run->pass;
    double all, here;
    int r = run_read_norm(run, &all);

    if (r < 0)
        return r;
    here = p->adapter.is && isfinite(all) ? run->step.norms[0] : all;
    *norm = run->step.groups++ ? hypot(*norm, here) : here;
    if (!isfinite(all))
        return 1;
    p->update.coefficient = coefficient(run->params.clip_norm, here);
    p->adapter.coefficient = coefficient(run->params.lora_clip_norm, run->step.norms[1]);
    return 0;
}

/* The next batch, on the device; what it points to is the data set's. */
static int start_batch(struct tr_run *run, struct tr_batch *batch)
{
    const struct tr_cursor *c = &run->cursor;
    int r = tr_data_batch(run->data, (int64_t)c->epoch, (int64_t)c->epoch_step, batch);

    return r < 0 ? r : tr_pass_batch(&run->pass, batch, (float)c->loss_scale);
}

static double rate_at(const struct tr_run *run, double base, int64_t step)
{
    const struct tr_train_params *p = &run->params;

    return tr_lr_at(p->schedule, base, p->warmup > 0 ? p->warmup : 0, step, run->steps);
}

double run_adapter_rate(const struct tr_run *run, int64_t step)
{
    return rate_at(run, run->params.lora_lr, step);
}

/* For updates by this step's own gradients. */
static void take_step(struct tr_run *run, double lr)
{
    struct tr_update *u = &run->pass.update;

    u->lr = lr;
    u->t = run->cursor.t + 1;
    u->unscale = (float)(1 / run->cursor.loss_scale);
}

static void prepare_update(struct tr_run *run, struct tr_step_report *report)
{
    int64_t step = (int64_t)run->cursor.step + 1;

    report->lr = rate_at(run, run->params.lr, step);
    run->pass.drop_step = run->cursor.t + 1;
    run->pass.n_sumsq = run->step.read_sumsq = 0;
    run->step.groups = 0;
    if (run->model->parked) {
        run_take_pending(run);
        return;
    }
    take_step(run, report->lr);
    run->pass.update.coefficient = 1;
    run->pass.adapter.coefficient = 1;
    run->pass.adapter.lr = run_adapter_rate(run, step);
    report->grad_norm = run->plan.in.fused ? NAN : 0;
}

/* The last look before weights change: *skip where the loss, or the norm that was asked for, is not
 * finite. Nothing of such a step is applied from here on: no further group counts as clipped. */
static int before_update(struct tr_run *run, enum tr_pass done, struct tr_step_report *report,
                         int *skip)
{
    int clips = done == TR_PASS_NORM && !*skip;
    int r = clips ? clip(run, &report->grad_norm) : sync_compute(run);

    if (r < 0)
        return r;
    report->loss = weighted_loss(run);
    *skip |= r == 1 || !isfinite(report->loss);
    return 0;
}

/* Between the passes. Where gradients wait, the updates until here were the step's before. */
static int turn(struct tr_run *run, enum tr_pass done, struct tr_step_report *report, int *skip)
{
    if (run->model->parked)
        take_step(run, report->lr);
    return before_update(run, done, report, skip);
}

/* The same where updates wait for the next step: when all of this one has been queued, unless the
 * embedding's came at once. */
static int park(struct tr_run *run, struct tr_step_report *report, int *skip)
{
    int r = 0;

    if (!run->model->parked)
        return 0;
    if (run->visits.units[run->visits.n - 1].pass != TR_PASS_UPDATE)
        r = before_update(run, TR_PASS_NORM, report, skip);
    if (r == 0)
        run_leave_pending(run, report->lr, *skip);
    return r;
}

/* A skipped step's visits pass through: their write-backs change no byte. What the step before has
 * left is applied ahead of the forward pass. */
static int computes(const struct tr_run *run, const struct tr_unit_visit *u, int skip)
{
    if (!tr_unit_updates(u) && !u->leaves)
        return 1;
    return u->pass == TR_PASS_FORWARD ? (int)run->cursor.pending.is : !skip;
}

int run_commit_wait(struct tr_run *run)
{
    int r = tr_offload_commit_wait(run->offload);

    return r < 0 ? r : metrics_settle(&run->metrics);
}

/* Between the visits of a step that is long the lines of the one before need not wait. */
static int settle_metrics(struct tr_run *run)
{
    int durable = run->metrics.begun ? tr_offload_committed(run->offload) : 0;

    return durable > 0 ? metrics_settle(&run->metrics) : durable;
}

/* All visits of the step. */
static int walk(struct tr_run *run, struct tr_step_report *report, int *skip)
{
    const struct tr_visits *v = &run->visits;
    int r = 0;

    run->pass.dropout = run->pass.drop;
    for (uint32_t i = 0; i < v->n && r == 0; i++) {
        enum tr_pass pass = v->units[i].pass, done = i ? v->units[i - 1].pass : TR_PASS_FORWARD;

        if (i == v->forward)
            r = copy_losses(run);
        if (r == 0 && pass == TR_PASS_UPDATE && done != TR_PASS_UPDATE)
            r = turn(run, done, report, skip);
        if (r == 0)
            r = run_visit(run, v, i, computes(run, &v->units[i], *skip) ? run_queue : NULL, run);
        if (r == 0)
            r = settle_metrics(run);
    }
    run->pass.dropout = 0; /* what is evaluated has all of its inputs */
    return r;
}

static void count_step(struct tr_run *run)
{
    struct tr_cursor *c = &run->cursor;

    c->step++;
    c->tokens += (uint64_t)run->pass.batch->n_tokens;
    if (++c->epoch_step >= (uint64_t)tr_data_steps(run->data)) {
        c->epoch++;
        c->epoch_step = 0;
    }
}

static int count_update(struct tr_run *run, int skipped)
{
    struct tr_cursor *c = &run->cursor;

    c->t += !skipped;
    c->skipped += (uint64_t)skipped;
    return run_rescale(run, skipped);
}

static int commit_due(const struct tr_run *run)
{
    enum tr_keep keep = run->params.durability;
    int64_t step = (int64_t)run->cursor.step;

    if (keep == TR_KEEP_STEP)
        return 1;
    return keep == TR_KEEP_CHECKPOINT &&
           (step % run->params.checkpoint_every == 0 || step == run->steps);
}

int run_commit(struct tr_run *run)
{
    unsigned char payload[TR_CURSOR_BYTES];
    int r = run_commit_wait(run);

    if (r < 0 || (r = metrics_begin(&run->metrics)) < 0)
        return r;
    if (run->step.since_commit == RUN_TRAIN)
        run->measured.foreseen_bytes += tr_prediction_kept(&run->foreseen, run->measured.walked);
    else if (run->step.since_commit == RUN_SETTLE)
        run->measured.foreseen_bytes +=
            tr_prediction_settle(&run->foreseen, run->measured.walked)->kept;
    run->step.since_commit = RUN_NOTHING;
    run->measured.committed = 1;
    run->last = run->cursor;
    tr_cursor_pack(&run->cursor, payload);
    return tr_offload_commit(run->offload, payload, sizeof(payload));
}

static void measure(struct tr_run *run, struct tr_step_report *report,
                    const struct tr_offload_stats *before, double t0)
{
    struct tr_offload_stats s;

    tr_offload_stats(run->offload, &s);
    report->seconds = tr_now() - t0;
    report->tokens = run->pass.batch->n_tokens;
    report->tokens_per_s = (double)report->tokens / report->seconds;
    report->wait_load_s = 1e-9 * (double)(s.wait_load_ns - before->wait_load_ns);
    report->wait_commit_s = 1e-9 * (double)(s.wait_commit_ns - before->wait_commit_ns);
    report->read_bytes = s.read_bytes - before->read_bytes;
    report->written_bytes = s.written_bytes - before->written_bytes;
    report->spilled_bytes = s.spilled_bytes - before->spilled_bytes;
    report->device_peak_bytes = run->plan.peak + run->device_info.workspace_bytes;
    report->host_peak_bytes = tr_mem_host_peak();
    report->targets = count_targets(run->pass.batch);
}

int run_eval_due(const struct tr_run *run)
{
    int64_t step = (int64_t)run->cursor.step, every = run->params.eval_every;

    return run->valid && (step == run->steps || (every > 0 && step % every == 0));
}

static enum run_begun next_step(const struct tr_run *run)
{
    return (int64_t)run->cursor.step < run->steps ? RUN_TRAIN : RUN_NOTHING;
}

static int begin_next(struct tr_run *run)
{
    enum run_begun eval = run->model->parked ? RUN_SETTLE : RUN_FORWARD;

    return run_begin(run, run_eval_due(run) ? eval : next_step(run));
}

int run_stop_asked(const struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;

    return p->stop && (int64_t)run->cursor.step < run->steps && p->stop(p->stop_arg);
}

/* The questions first: the loss leaves the engine told of the next step. */
static int ask(struct tr_run *run, struct tr_step_report *report)
{
    struct task_metrics m;
    int r = run->questions ? task_set_answer(run, run->questions, (int32_t)run->params.seq_len) : 0;

    if (r < 0)
        return r;
    if (run->questions) {
        task_set_metrics(run->questions, &m);
        report->eval_accuracy = m.accuracy[0];
    }
    return run_evaluate(run, run->valid, &report->eval_loss, NULL);
}

/* One that is stopped has told nothing; its step counts. */
static int evaluate(struct tr_run *run, struct tr_step_report *report)
{
    int r = ask(run, report);

    if (r != -EINTR)
        return r;
    report->eval_loss = report->eval_accuracy = NAN;
    return run_begin(run, next_step(run));
}

/* What comes between the last visit and the commit, which finds the line of its step kept. The
 * compute has been waited for by then (run_check_applied): an op that could not run has left
 * weights as they were, and their write-back looks like any other. The validation comes before
 * the commit, too: where a run is cut off in it, the step is done again, and its line is whole. */
static int conclude(struct tr_run *run, struct tr_step_report *report)
{
    int r;

    report->step = (int64_t)run->cursor.step;
    report->steps = run->steps;
    report->eval_loss = report->eval_accuracy = NAN;
    if (run_eval_due(run) && ((r = run_settle(run)) < 0 || (r = evaluate(run, report)) < 0))
        return r;
    if ((r = metrics_add(&run->metrics, report)) < 0 || !commit_due(run))
        return r;
    return run_commit(run);
}

int run_step(struct tr_run *run, struct tr_step_report *report)
{
    struct tr_offload_stats before;
    struct tr_batch batch;
    double t0 = tr_now();
    int skip = 0, r;

    memset(report, 0, sizeof(*report));
    tr_offload_stats(run->offload, &before);
    if ((r = run_begin(run, RUN_TRAIN)) < 0 || (r = start_batch(run, &batch)) < 0)
        return r;
    prepare_update(run, report);
    if ((r = walk(run, report, &skip)) < 0)
        return r;
    run->step.begun = RUN_NOTHING;
    run->step.since_commit = RUN_TRAIN;
    run->measured.walked++;
    count_step(run);
    if ((r = begin_next(run)) < 0 || (r = park(run, report, &skip)) < 0 ||
        (r = run_check_applied(run, &report->grad_norm, &skip)) < 0 ||
        (r = run_check_skips(run, skip)) < 0 || (skip && (r = begin_next(run)) < 0) ||
        (r = count_update(run, skip)) < 0 || (commit_due(run) && (r = run_commit_wait(run)) < 0))
        return r;
    report->skipped = skip;
    measure(run, report, &before, t0); /* the batch at hand is still this step's */
    return conclude(run, report);
}

int run_trial(struct tr_run *run, double lr, double *loss)
{
    struct tr_step_report report = {0};
    struct tr_batch batch;
    int skip = 0, r;

    if ((r = run_begin(run, RUN_TRAIN)) < 0 || (r = start_batch(run, &batch)) < 0)
        return r;
    prepare_update(run, &report);
    report.lr = lr;
    if (!run->model->parked)
        run->pass.update.lr = lr;
    if ((r = walk(run, &report, &skip)) < 0)
        return r;
    run->step.begun = RUN_NOTHING;
    count_step(run);
    if ((r = run_begin(run, RUN_TRAIN)) < 0 || (r = park(run, &report, &skip)) < 0 ||
        (r = sync_compute(run)) < 0)
        return r;
    *loss = report.loss;
    if (!skip && !run->plan.in.norm) {
        r = run_read_norm(run, &report.grad_norm);
        *loss = isfinite(report.grad_norm) ? report.loss : NAN;
    }
    if (r == 0 && count_update(run, skip) < 0)
        *loss = NAN;
    return r;
}

int run_forward(struct tr_run *run)
{
    int r = run_walk(run, RUN_FORWARD, run_queue, run);

    if (r < 0 || (r = copy_losses(run)) < 0)
        return r;
    return sync_compute(run);
}

int run_evaluate(struct tr_run *run, struct tr_data *data, double *loss, int64_t *targets)
{
    int64_t steps = tr_data_steps(data), n = 0;
    double sum = 0, weights = 0;

    for (int64_t s = 0; s < steps; s++) {
        struct tr_batch batch;
        int r = tr_data_batch(data, 0, s, &batch);

        if (r < 0 || (r = tr_pass_batch(&run->pass, &batch, 1)) < 0 || (r = run_forward(run)) < 0)
            return r;
        sum += weighted_loss(run) * batch.weight_sum;
        weights += batch.weight_sum;
        n += count_targets(&batch);
        if (s + 1 < steps && run_stop_asked(run))
            return -EINTR;
        r = run_begin(run, s + 1 < steps ? RUN_FORWARD : next_step(run));
        if (r < 0)
            return r;
    }
    *loss = weights > 0 ? sum / weights : NAN;
    if (targets)
        *targets = n;
    return 0;
}
