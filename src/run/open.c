/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening a run. Everything that can be refused is refused before anything is made: options,
 * config, tensors, data, the plan against the budgets, the disk. Then the run folder, run.yaml, the
 * import; or, where the folder holds this very run, the store at its last commit.
 *
 * RUN/run.yaml    resolved options; written first, so that a cut-off import is known as ours
 * RUN/source/     the model folder's other files and tailrace-shards.json, for the export
 * RUN/store/      the store (or where --store says; its UUID stands in RUN/plan.json and
 *                 RUN/source/tailrace-shards.json)
 */
#include "src/run/open.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/source.h"
#include "src/infer/task_set.h"
#include "src/run/find.h"

/* What the run folder is before we touch it. */
enum folder { FOLDER_NEW, FOLDER_OURS, FOLDER_CUT_OFF };

static int look_at_folder(struct tr_run *run, enum folder *state)
{
    const char *out = run->params.out;
    int empty = tr_folder_is_empty(out), r;

    *state = FOLDER_NEW;
    if (empty == -ENOENT)
        return tr_check_place(out);
    if (empty == 1 || tr_folder_holds_only(out, "run.yaml" TR_FILE_TMP))
        return 0; /* the last: cut off while its first file was written */
    if (empty < 0)
        return empty;
    if (!tr_folder_has(out, "run.yaml"))
        return tr_error(-EEXIST, "%s: exists, is not empty and holds no run (no run.yaml)", out);
    r = tr_store_open(&run->store, run->params.store, TR_STORE_WRITE);
    if (r == 0)
        *state = FOLDER_OURS;
    if (r != -ENODATA && r != -ENOENT)
        return r;
    /* It is written after the import: with it this is none that was cut off. */
    if (tr_folder_has(out, "plan.json"))
        return tr_error(-ENOENT,
                        "%s: the run's store is missing or empty; where is it now? --store",
                        run->params.store);
    *state = FOLDER_CUT_OFF;
    return 0;
}

static int lock_folder(struct tr_run *run)
{
    const char *out = run->params.out;

    run->lock = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run->lock < 0)
        return tr_error(-errno, "%s: cannot open: %s", out, strerror(errno));
    if (flock(run->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return tr_error(-EBUSY, "%s: another process is using this run", out);
    return tr_error(-errno, "%s: cannot lock the run: %s", out, strerror(errno));
}

/* The lock comes long after the first look: what another process has made meanwhile is its own. */
static int look_again(const char *out)
{
    static const char *const ours[] = {"run.yaml", "source", "plan.json"};

    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        if (tr_folder_has(out, ours[i]))
            return tr_error(-EEXIST, "%s: another process has made a run here meanwhile", out);
    return 0;
}

/* An import that was cut off starts over; what it made is ours to remove, as long as no commit has
 * made a run of it (the store refuses otherwise). Before the disk is looked at, of which it may
 * have taken all that the run needs. */
static int start_over(struct tr_run *run)
{
    int r = lock_folder(run);

    if (r < 0)
        return r;
    run_log(run, "%s: an import was cut off here; starting over", run->params.out);
    r = tr_store_discard(run->params.store);
    if (r == -ENOENT) /* cut off before its first file */
        r = 0;
    if (r == 0 && tr_folder_has(run->params.out, "source")) {
        char *keep = tr_path(run->params.out, "source");

        r = keep ? tr_remove_tree(keep) : -ENOMEM;
        tr_free(TR_MEM_MISC, keep);
    }
    return r;
}

/* The one that is asked for, or the model folder's; of a run that exists, and whose model folder
 * has it no more, what was kept of that. */
static int open_tokenizer(struct tr_run *run)
{
    const char *folder = run->params.tokenizer ? run->params.tokenizer : run->params.model;
    char *keep = tr_path(run->params.out, "source");
    int r = keep ? 0 : -ENOMEM;

    if (!run->params.tokenizer && run->kept && !(folder && tr_tokenizer_is_in(folder)))
        folder = keep;
    /* pre-tokenised data needs none; other data will say so */
    if (r == 0 && folder && (run->params.tokenizer || tr_tokenizer_is_in(folder)))
        r = tr_tokenizer_open(&run->tokenizer, folder);
    tr_free(TR_MEM_MISC, keep);
    return r;
}

/* Training data is shuffled, and may be a part of its file. */
static int open_data(struct tr_run *run, const char *path, int shuffle, struct tr_data **out)
{
    const struct tr_train_params *p = &run->params;

    return tr_data_open(out, &(struct tr_data_params){
                                 .path = path,
                                 .held_out = !shuffle,
                                 .template_name = p->chat_template,
                                 .tokenizer = run->tokenizer,
                                 .vocab = run->model->config.vocab,
                                 .seq_len = (int)p->seq_len,
                                 .packing = p->packing != TR_NO,
                                 .packing_asked = p->packing == TR_YES,
                                 .batch_size = (int)p->batch_size,
                                 .task = (int)p->task,
                                 .samples = shuffle ? p->samples : 0,
                                 .shuffle = shuffle,
                                 .seed = p->seed,
                                 .grain_tokens = run->device_info.grain_tokens,
                                 .host_bytes = p->host_memory,
                                 .stop = p->stop,
                                 .stop_arg = p->stop_arg,
                             });
}

static int open_valid(struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;
    int r = p->valid ? open_data(run, p->valid, 0, &run->valid) : 0;

    if (r < 0 || !p->valid || !p->task)
        return r;
    return task_set_open(&run->questions,
                         &(struct task_set_params){.task = p->task,
                                                   .path = p->valid,
                                                   .tokenizer = run->tokenizer,
                                                   .vocab = run->model->config.vocab,
                                                   .stop = p->stop,
                                                   .stop_arg = p->stop_arg});
}

static void report_data(const struct tr_run *run)
{
    struct tr_data_info i;

    tr_data_info(run->data, &i);
    run_log(run, "data: %s: %s, %llu samples, %llu tokens, %llu with a loss", run->params.data,
            tr_data_format_name(i.format), (unsigned long long)i.samples,
            (unsigned long long)i.tokens, (unsigned long long)i.targets);
    if (*i.template_from)
        run_log(run, "data: the chat template is %s", i.template_from);
    if (i.rewritten)
        run_log(run,
                "data: %llu answers are learnt as the template shows them in hindsight, which is "
                "not how it shows them when they are the last",
                (unsigned long long)i.rewritten);
    if (i.endless)
        run_log(run,
                "data: %llu answers end with no special token of the tokenizer: what generates "
                "cannot tell by it where to stop",
                (unsigned long long)i.endless);
    if (i.truncated)
        run_log(run, "data: %llu samples are longer than %lld tokens: %llu tokens were cut off",
                (unsigned long long)i.truncated, (long long)run->params.seq_len,
                (unsigned long long)i.dropped_tokens);
}

/* Every epoch has the same number of steps (src/text/data.h). */
static int count_steps(struct tr_run *run)
{
    double steps = ceil(run->params.epochs * (double)tr_data_steps(run->data));

    if (run->params.steps == 0 && steps > 1e15)
        return tr_error(-EINVAL, "--epochs %g: too many steps", run->params.epochs);
    run->steps = run->params.steps > 0 ? run->params.steps : steps < 1 ? 1 : (int64_t)steps;
    return 0;
}

static int32_t max32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

int run_make_plan(struct tr_run *run, int32_t batch_tokens, int32_t grain_tokens)
{
    const struct tr_train_params *p = &run->params;
    int timed = p->recompute == TR_RECOMPUTE_AUTO;
    int32_t named = p->recompute == TR_RECOMPUTE_NONE ? run->model->config.layers : 0;
    static const enum tr_streams streams[] = {[TR_STREAMING_AUTO] = TR_STREAMS_AUTO,
                                              [TR_STREAMING_BLOCKS] = TR_STREAMS_BLOCKS,
                                              [TR_STREAMING_MATRICES] = TR_STREAMS_PARTS};
    int64_t micro = p->fused_gemm ? INT32_MAX : p->micro_batch * p->seq_len;

    return tr_plan_make(
        &run->plan,
        &(struct tr_plan_params){.model = run->model,
                                 .batch_tokens = batch_tokens,
                                 .grain_tokens = grain_tokens,
                                 .micro_tokens = micro < INT32_MAX ? (int32_t)micro : INT32_MAX,
                                 .positions = p->seq_len,
                                 .compute = run->device_info.compute[run->model->dtype],
                                 .train = 1,
                                 .norm = p->clip_norm > 0 || p->lora_clip_norm > 0,
                                 .fused = p->fused_gemm,
                                 .group = run_clip_group(run),
                                 .frames = timed ? run->frames : TR_FRAMES_FIRST,
                                 .keep = timed ? run->keep : named,
                                 .streams = streams[p->streaming],
                                 .apart = run->apart,
                                 .host_budget = run_host_room(run, run->apart),
                                 .budget = run->device_info.arena_bytes,
                                 .workspace = run->device_info.workspace_bytes});
}

int run_place_anew(struct tr_run *run)
{
    struct tr_plan_params in = run->plan.in;
    int r;

    run_unplace(run);
    r = run_make_plan(run, in.batch_tokens, in.grain_tokens);
    return r < 0 ? r : run_place(run);
}

static int make_plan(struct tr_run *run)
{
    struct tr_data *d = run->data, *v = run->valid;
    int32_t longest = run->questions ? run->questions->longest : 0; /* a choice and its context */
    int32_t batch = max32(tr_data_batch_tokens(d), v ? tr_data_batch_tokens(v) : 0);
    int32_t grain = max32(tr_data_grain_tokens(d), v ? tr_data_grain_tokens(v) : 0);

    if (longest > run->params.seq_len)
        longest = (int32_t)run->params.seq_len;
    return run_make_any_plan(run, max32(batch, longest), max32(grain, longest));
}

static int import(struct tr_run *run)
{
    struct tr_import_params *p = &run->import_params;
    unsigned char payload[TR_CURSOR_BYTES];
    double speed[TR_STORE_FOLDERS];
    char *keep = tr_path(run->params.out, "source");
    int r;

    if (!keep)
        return -ENOMEM;
    tr_cursor_pack(&run->cursor, payload);
    p->store = run->params.store;
    p->keep = keep;
    p->speed = run_drive_speeds(run, speed) ? speed : NULL;
    p->generations = (int)run_generations(run);
    p->payload = payload;
    p->payload_bytes = sizeof(payload);
    p->progress = run->params.importing;
    p->progress_arg = run->params.importing_arg;
    r = tr_import_run(run->import);
    p->speed = NULL;
    tr_free(TR_MEM_MISC, keep);
    return r;
}

/* Makes the folder, writes run.yaml, imports. On failure what was made is removed again; but once
 * there is a commit there is a run, which the next command takes up. */
static int start_new(struct tr_run *run, enum folder state)
{
    int made = tr_folder_is_empty(run->params.out) == -ENOENT, r;

    if (state == FOLDER_NEW &&
        ((r = tr_make_folder(run->params.out)) < 0 || (r = lock_folder(run)) < 0 ||
         (r = look_again(run->params.out)) < 0))
        return r;
    if ((r = run_write_options(run)) < 0 || (r = import(run)) < 0) {
        run_unmake(run, made);
        return r;
    }
    r = tr_store_open(&run->store, run->params.store, TR_STORE_WRITE);
    return r < 0 ? r : run_write_plan(run);
}

/* With other data, by force, the epoch may be shorter than it was. */
static void enter_epoch(struct tr_run *run)
{
    struct tr_cursor *c = &run->cursor;

    if (c->epoch_step < (uint64_t)tr_data_steps(run->data))
        return;
    c->epoch++;
    c->epoch_step = 0;
}

/* A step whose update still waits (src/train/pending.c) was made with the settings of run.yaml: it
 * is finished with those before others are forced. */
static int finish_before_force(struct tr_run *run)
{
    int r;

    if (!run->params.force || !run->cursor.pending.is)
        return 0;
    tr_store_close(run->store);
    run->store = NULL;
    if ((r = run_settle_folder(run->params.out, run->params.store)) < 0 ||
        (r = tr_store_open(&run->store, run->params.store, TR_STORE_WRITE)) < 0)
        return r;
    return tr_cursor_read(run->store, &run->cursor);
}

static int continue_run(struct tr_run *run)
{
    int r;

    if ((r = lock_folder(run)) < 0 || (r = run_check_options(run)) < 0 ||
        (r = tr_cursor_read(run->store, &run->cursor)) < 0 || (r = finish_before_force(run)) < 0)
        return r;
    if ((int64_t)run->cursor.step > run->steps)
        return tr_error(-EINVAL, "%s: stands at step %llu, %lld are asked for", run->params.out,
                        (unsigned long long)run->cursor.step, (long long)run->steps);
    run_note_torn(run);
    run_log(run, "%s: continues after step %llu", run->params.out,
            (unsigned long long)run->cursor.step);
    enter_epoch(run);
    run_sweep_exports(run);
    run_note_bits(run);
    run_recall(run);
    r = run_write_options(run);
    return r < 0 ? r : run_write_plan(run);
}

static int start_or_continue(struct tr_run *run, enum folder state)
{
    int r = state == FOLDER_OURS ? continue_run(run) : start_new(run, state);

    run->last = run->cursor;
    if (r < 0 || (r = metrics_open(&run->metrics, run->params.out)) < 0 ||
        (r = metrics_rewind(&run->metrics, run->cursor.step)) < 0)
        return r;
    run_note_skips(run);
    return run_start_machine(run);
}

int run_open_source(struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;
    int r = run_refuse_folder(p->model);

    if (r < 0)
        return r;
    run->import_params = (struct tr_import_params){.model = p->model,
                                                   .arch = p->arch,
                                                   .seed = p->seed,
                                                   .tokenizer = p->tokenizer,
                                                   .dtype = (int)p->dtype - 1,
                                                   .state = run_state_kind(p),
                                                   .master = run_master(p),
                                                   .freeze = p->freeze,
                                                   .adapter = p->adapter,
                                                   .threads = (int)p->threads};
    if ((r = run_lora(p, &run->import_params.lora)) < 0)
        return r;
    if ((p->lora_rank || p->adapter) && !p->lora_optimizer)
        run->import_params.state = TR_STATE_NONE; /* that of the options is the adapters' */
    if ((r = tr_dtype_check((int)p->dtype - 1)) < 0 ||
        (r = tr_import_open(&run->import, &run->import_params)) < 0)
        return r;
    run->model = tr_import_model(run->import);
    if (*tr_import_note(run->import))
        run_log(run, "%s", tr_import_note(run->import));
    return 0;
}

/* A new run's model table comes from its source, a continued one's from what was kept of it. */
static int open_model(struct tr_run *run, enum folder state)
{
    int r;

    if (state != FOLDER_OURS)
        return run_open_source(run);
    if ((r = run_keep_open(run->params.out, run->store, &run->kept)) == 0)
        run->model = run->kept->model;
    return r;
}

static int open_all(struct tr_run *run, const struct tr_train_params *params)
{
    enum folder state;
    int r;

    if (params->io == TR_ENGINE_AUTO && (r = tr_io_check_environment()) < 0)
        return r;
    if ((r = run_copy_params(run, params)) < 0 ||
        (r = tr_task_check(params->task, params->chat_template)) < 0 ||
        (r = look_at_folder(run, &state)) < 0 || (r = open_model(run, state)) < 0 ||
        (r = run_resolve(run)) < 0 || (r = run_open_device(run)) < 0 ||
        (r = open_tokenizer(run)) < 0 ||
        (r = open_data(run, run->params.data, 1, &run->data)) < 0 || (r = open_valid(run)) < 0 ||
        (r = count_steps(run)) < 0 || (r = make_plan(run)) < 0 || (r = run_place(run)) < 0 ||
        (state == FOLDER_CUT_OFF && (r = start_over(run)) < 0) || (r = run_choose_here(run)) < 0)
        return r;
    if (state != FOLDER_OURS && (r = run_check_disk(run)) < 0)
        return r;
    run->data_hash = tr_data_hash(run->data);
    report_data(run);
    if ((r = run_foresee(run)) < 0)
        return r;
    return start_or_continue(run, state);
}

int tr_train_open(tr_run **out, const struct tr_train_params *params)
{
    struct tr_run *run = tr_alloc(TR_MEM_MISC, sizeof(*run));
    int r;

    *out = NULL;
    if (!run)
        return -ENOMEM;
    run->lock = -1;
    run->model_step = -1;
    run->cursor.loss_scale = 1;
    tr_mem_restart_peaks();
    r = open_all(run, params);
    if (r < 0) {
        tr_train_close(run);
        return r;
    }
    run_make_summary(run);
    run_note_places(run);
    *out = run;
    return 0;
}
