/* SPDX-License-Identifier: Apache-2.0
 *
 * A run: everything that one training (or one evaluation) holds, in the order in which it is
 * opened. open.c opens and resumes it, step.c is the training step, pending.c what it leaves to the
 * next one, metrics.c its lines, infer.c evaluates and generates with the same machinery, forward
 * only.
 */
#ifndef TR_SRC_RUN_RUN_H
#define TR_SRC_RUN_RUN_H

#include <stdio.h>

#include "src/checkpoint/import.h"
#include "src/plan/predict.h"
#include "src/run/cursor.h"
#include "src/run/devices.h"
#include "src/tailrace.h"
#include "src/train/pass.h"

/* What the offload engine has been told comes next. */
enum run_begun { RUN_NOTHING, RUN_TRAIN, RUN_FORWARD, RUN_SETTLE };

struct tr_metrics {
    FILE *file, *next;
    char *path, *next_path;
    char *pending; /* lines of steps whose commit is not known to be durable */
    size_t bytes, room;
    size_t begun; /* of the bytes: a commit under way speaks of these */
    long synced;  /* the second of the last sync */
    int settled;  /* all that .next holds has been added to the file */
};

#define TR_MEASURED_STEPS 1024

/* What this process's steps really took. */
struct tr_measured {
    /* Of the latest steps but the first, whose loads begin from nothing: a ring, so that a long run
     * takes no more memory than a short one. */
    struct tr_measured_step {
        double seconds;
        int after_commit; /* of those that are not at the end of every step */
    } step[TR_MEASURED_STEPS];
    size_t n, next;
    int committed, follows; /* a commit was started after the step at hand, or the one before */
    int64_t steps, settled; /* passes of updates alone */
    /* By the engine at hand, which a snapshot closes and opens again: steps, and with the one that
     * is being done. Foreseen of those before it are their sums. */
    int64_t since, walked;
    /* Beside what steps move themselves: by the commits so far, and to finish steps. */
    uint64_t foreseen_bytes, foreseen_read;
    uint64_t device_bytes, pinned_bytes;
    struct tr_moved {
        uint64_t read, written;
        uint64_t read_by[TR_STORE_FOLDERS], written_by[TR_STORE_FOLDERS]; /* folder of the store */
    } closed, moved; /* by engines that were closed; by all of them */
    char *text;      /* beside what was foreseen */
};

/* --durability and --checkpoint-every. */
struct tr_durable {
    enum tr_keep durability;
    int64_t every;
};

/* Seconds of a step, predicted: each durable, or every so many; 0: not known. And by which clip
 * method, where that is chosen with them; else AUTO. */
struct tr_durable_cost {
    double step, checkpoint;
    enum tr_clip step_clip, checkpoint_clip;
};

/* What memory there is, in bytes. */
struct tr_memory {
    uint64_t device, host;           /* shares are of these */
    uint64_t device_share;           /* where the options say none */
    uint64_t most_device, most_host; /* budgets beyond are refused */
    int shared;                      /* the device's is the host's own */
};

struct task_set;

/* The step at hand, and how it stands between steps. */
struct tr_step_state {
    enum run_begun begun;
    enum run_begun since_commit; /* RUN_SETTLE, or with steps RUN_TRAIN: what has changed bytes */
    int skips;                   /* steps in a row that were skipped */
    int groups;                  /* of this step that have been clipped by a norm of their own */
    uint32_t read_sumsq;         /* entries of this step's norms that have been read */
    double norms[2];             /* of what was read last: the model's, adapters' */
    float *nll;                  /* pinned host, (batch tokens) */
    double *sumsq;               /* pinned host */
};

struct tr_run {
    struct tr_train_params params;     /* resolved: no field is "default" any more */
    uint64_t device_asked, host_asked; /* its budgets before that */
    int host_left;                     /* that of the host is a share of what the device's leaves */
    int lock;                          /* the run folder, locked */
    struct tr_tokenizer *tokenizer;
    struct tr_data *data, *valid;
    uint64_t data_hash;         /* of data: of the tokens that the run learns */
    struct task_set *questions; /* of a task: valid's, with all their choices; or NULL */
    struct tr_store *store;
    const struct tr_model *model; /* of import or kept, whichever is open */
    struct tr_import_params import_params;
    struct tr_import *import; /* a new run, or a model folder opened for inference */
    struct tr_kept *kept;     /* a run that exists */
    struct tr_device_choice choice;
    const struct tr_memory *elsewhere; /* of a machine that only exists as figures; or NULL */
    struct tr_device *device;
    struct tr_device_info device_info;
    int apart;             /* updates run on the cpu: by name, or chosen (update_on.c) */
    enum tr_frames frames; /* where time decides which blocks keep their activations (choose.c) */
    int32_t keep;
    struct tr_device *cpu; /* which does so, in pinned memory of plan.host_bytes */
    char *host;
    struct tr_plan plan;
    struct tr_offload *offload;
    struct tr_visits visits; /* forward visits come first */
    /* Where gradients wait in the store: the forward pass without updates, updates without it. */
    struct tr_visits plain, settle;
    struct tr_span *spans; /* (n_spans) the layout's, then the boundaries */
    uint32_t n_spans;
    unsigned char *in_host;     /* (spans) has a home in the host tier */
    struct tr_scratch *scratch; /* (boundaries) */
    struct tr_stripes spills;   /* of those that spill, in a store of several folders */
    uint64_t tier_bytes, staging_bytes;
    uint64_t least_host;                    /* the smallest --host-memory that would do */
    uint64_t spill_bytes, spill_host_bytes; /* of boundaries: in the scratch file; of tier_bytes */
    int clip_chosen;                        /* deferred, and not by name */
    int durability_auto;                    /* a new run's, to be chosen (durability.c) */
    struct tr_durable before;               /* of a run that exists */
    struct tr_durable_cost durable;
    struct tr_pass_state pass;
    struct tr_cursor cursor; /* of the steps queued so far */
    struct tr_cursor last;   /* of the last commit that was started */
    int64_t steps;           /* in all */
    int trained;             /* a step has been done since the run was opened */
    int failed;              /* the error of a step or a commit, after which nothing follows, */
    char failure[1024];      /* and its message */
    int snapshot_stays;      /* RUN/checkpoint, which cannot be removed */
    int exported;            /* tr_train_finish has written the model */
    int64_t model_step;      /* at which RUN/model was written; -1: not known */
    struct tr_step_state step;
    struct tr_metrics metrics;
    struct tr_prediction foreseen;
    struct tr_measured measured;
    char *summary;
    struct tr_plan_row rows[TR_PLAN_ROWS];
};

/* What --durability asks of the engine: auto, until it is settled, what step does. */
static inline enum tr_durability run_durability(const struct tr_run *run)
{
    return run->params.durability == TR_KEEP_NONE         ? TR_DURABLE_NONE
           : run->params.durability == TR_KEEP_CHECKPOINT ? TR_DURABLE_CHECKPOINT
                                                          : TR_DURABLE_STEP;
}

/* And of the store: in how many places it has everything. */
static inline uint32_t run_generations(const struct tr_run *run)
{
    return run_durability(run) == TR_DURABLE_NONE ? 1 : 2;
}

void run_log(const struct tr_run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- step.c --------------------------------------------------------------------------------- */
int run_step(struct tr_run *run, struct tr_step_report *report);
/* Starts a commit of all steps so far; the one before is waited for. */
int run_commit(struct tr_run *run);
/* Waits until the last commit started is durable; then its steps count, and have their lines. */
int run_commit_wait(struct tr_run *run);
/* The rate of adapters beside a model that trains, at this step. */
double run_adapter_rate(const struct tr_run *run, int64_t step);
/* A step at this rate that is neither committed nor reported, for a test that is undone. Its loss
 * is NaN where that, or what it did to the weights, is not finite. */
int run_trial(struct tr_run *run, double lr, double *loss);
/* Tells the engine what comes next, so that its loads start now. */
int run_begin(struct tr_run *run, enum run_begun what);
/* The visits that this stands for; returns how many there are. */
uint32_t run_visits(const struct tr_run *run, enum run_begun what, const struct tr_visits **v);
/* Queues the compute of a visit whose spans have come; run_queue: the pass's own, arg is the run.
 */
typedef int run_queue_fn(void *arg, const struct tr_pass_visit *v);
int run_queue(void *arg, const struct tr_pass_visit *v);
/* Visit i of the list that has been begun; queue NULL: it passes through. */
int run_visit(struct tr_run *run, const struct tr_visits *list, uint32_t i, run_queue_fn *queue,
              void *arg);
/* Begins a list and walks all of it. */
int run_walk(struct tr_run *run, enum run_begun what, run_queue_fn *queue, void *arg);
/* One forward pass over a batch that has been copied (tr_pass_batch): its visits, losses in
 * run->step.nll. */
int run_forward(struct tr_run *run);
/* Mean loss over all targets of a data set; -EINTR: it was stopped. */
int run_evaluate(struct tr_run *run, struct tr_data *data, double *loss, int64_t *targets);
/* 1 where the caller wants no long call to go on; not after the last step, whose end is near. */
int run_stop_asked(const struct tr_run *run);
/* 1 when a validation loss is due after the steps done so far. */
int run_eval_due(const struct tr_run *run);

/* --- pending.c (an update that waits for the next step) ------------------------------------- */
/* The pass's update becomes the one that the last step has left. */
void run_take_pending(struct tr_run *run);
/* After the step's last visit: what it leaves to the next; skip: nothing. */
void run_leave_pending(struct tr_run *run, double lr, int skip);
/* Applies what the last step has left, in a pass of its own: then the parameters are finished. */
int run_settle(struct tr_run *run);
/* What that moves after a step, with slots like these. */
int run_predict_settle(const struct tr_run *run, const struct tr_slot_pool *pools,
                       struct tr_settle_bytes out[TR_PREDICT_STEPS]);

/* --- skip.c (loss or gradient not finite) --------------------------------------------------- */
/* Waits for the compute. The norm of the true gradient (loss scale taken off), summed over what has
 * been measured since the last call of the step, in the order of the visits. */
int run_read_norm(struct tr_run *run, double *norm);
/* After the last visit of a step that counts, before its commit: waits for the compute, and where
 * no norm was known before the update, looks whether all gradients were finite. Where one was not,
 * the step is given up (*skip = 1), or, where that cannot be, the run. */
int run_check_applied(struct tr_run *run, double *norm, int *skip);
/* A few skipped steps in a row are the end, except while an f16 run still lowers its loss scale. */
int run_check_skips(struct tr_run *run, int skip);
/* The loss scale of an f16 run after a step: doubled after many clean ones, halved at an overflow;
 * one that cannot be halved any more ends the run. */
int run_rescale(struct tr_run *run, int skipped);
/* Says before the first step whether a gradient that is not finite may end the run. */
void run_note_skips(const struct tr_run *run);

/* --- train.c and snapshot.c (between two steps) --------------------------------------------- */
/* Commits what has been done since the last commit; then all is durable. */
int run_commit_rest(struct tr_run *run);
/* RUN/model, numbered: RUN/model-STEP; freed with tr_free(TR_MEM_MISC, ...). */
char *run_model_folder(const struct tr_run *run, int numbered);
/* Exports to `out`, unless there is something; the engine is closed. */
int run_export(struct tr_run *run, const char *out);
/* Removes exports into the run folder, which is locked, that a crash has cut off. */
void run_sweep_exports(const struct tr_run *run);
/* The model of this step to RUN/model-STEP, if there is a file RUN/checkpoint; which goes then. */
int run_snapshot_if_asked(struct tr_run *run);
/* After a read that found damage: back to the newest commit, if what it names is whole, else to the
 * one before. -EBADMSG: neither is; the message names the damage. */
int run_fall_back(struct tr_run *run);

/* --- metrics.c ------------------------------------------------------------------------------ */
int metrics_open(struct tr_metrics *m, const char *run_folder);
/* Takes away the lines after `step`, those in memory too: the run has gone back to it. A line that
 * a kill has kept from the file is added. */
int metrics_rewind(struct tr_metrics *m, uint64_t step);
/* Queues the line of a step. */
int metrics_add(struct tr_metrics *m, const struct tr_step_report *r);
/* Keeps all lines that are queued, before the commit of their steps; the one before is settled. */
int metrics_begin(struct tr_metrics *m);
/* That commit is durable: its lines are written. Nothing where none is under way. */
int metrics_settle(struct tr_metrics *m);
void metrics_close(struct tr_metrics *m);

/* --- memory.c (budgets) --------------------------------------------------------------------- */
/* Budgets in bytes, where params name none or a share. -EINVAL: one is larger than what there is.
 */
int run_resolve_memory(struct tr_run *run);
/* Bytes of host memory that may be pinned on a machine that has so many. It does not depend on the
 * host budget: else a smaller one would leave more device memory, whose tables want more. */
uint64_t run_most_pinned(const struct tr_run *run, uint64_t host_bytes);

/* --- place.c (where everything is that is in no slot) --------------------------------------- */
/* The visits of a step, and what the host tier holds of their spans; nothing is allocated yet. */
int run_place(struct tr_run *run);
void run_unplace(struct tr_run *run);
/* Host memory that there is for slots of state and for homes, with updates on the cpu or not. */
uint64_t run_host_room(const struct tr_run *run, int apart);
/* The smallest host budget that would do; 0: not known. */
uint64_t run_least_host(const struct tr_run *run);
/* The plan's, before choose.c has chosen what activations have of the device. */
struct tr_plan_params run_plan_asked(const struct tr_run *run);
/* A pool of the plan as the engine has it, but for its place and the size of a slot. */
struct tr_slot_pool run_pool(const struct tr_run *run, int pool);
/* The slots of the plan, at their places in memory that has been opened. */
void run_name_pools(const struct tr_run *run, struct tr_slot_pool pools[TR_SLOT_POOLS]);

/* --- machine.c (device, offload, buffers of a run whose store and plan stand) ------------------
 */
int run_start_machine(struct tr_run *run);
/* The engine alone; closed, the store may be read and changed by others, and slots are empty. */
int run_open_offload(struct tr_run *run);
/* Before the arena's first use; after it, the bytes from its start that have been written, in pages
 * of 4096, where nothing is under way; 0: the kernel does not say (high_water.c). */
int run_mark_arena(struct tr_run *run);
int run_high_water(struct tr_run *run, uint64_t *bytes);
void run_close_offload(struct tr_run *run);
void run_stop_machine(struct tr_run *run);
/* Opens the device for the budget in params; its arena size goes to the plan. */
int run_open_device(struct tr_run *run);
/* What of the options the updates are made of. */
void run_set_update(struct tr_run *run);
/* The cpu beside the device, for updates, and what it takes for itself (update_on.c). */
int run_open_apart(struct tr_run *run);
void run_close_apart(struct tr_run *run);
uint64_t run_cpu_bytes(const struct tr_run *run);
/* May updates run on the cpu (apart), or on the device (not so), as the options say it? */
int run_may_update(const struct tr_run *run, int apart);
/* Pinned memory for what a step reads back, and host memory for the rope tables on their way. */
uint64_t run_buffer_bytes(const struct tr_run *run);
uint64_t run_rope_bytes(const struct tr_run *run);

#endif
