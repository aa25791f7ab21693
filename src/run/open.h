/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the files that open a run: open.c (the order), resolve.c (defaults and checks of
 * options), folder.c (run.yaml, plan.json, undoing).
 */
#ifndef TR_SRC_RUN_OPEN_H
#define TR_SRC_RUN_OPEN_H

#include <sys/types.h>

#include "src/base/mem.h"
#include "src/checkpoint/import.h"
#include "src/plan/plan_file.h"
#include "src/run/run.h"

/* Own copies of all strings; default paths (OUT/store). -EINVAL: something required is missing. */
int run_copy_params(struct tr_run *run, const struct tr_train_params *params);
void run_free_params(struct tr_run *run);
/* -EINVAL: neither a model nor a shape, or both. */
int run_check_source(const struct tr_train_params *p);
int run_make_absolute(const char **path); /* a TR_MEM_MISC string in place of such a one */
/* What of the options is a built-in name or else a file says which of them it is (names.c). */
int run_tell_names(struct tr_train_params *p);
/* Fills in every default, with the model at hand, and checks what belongs together. */
int run_resolve(struct tr_run *run);

/* The adapters of these options, as far as they say it: with a folder, that says the rest. */
int run_lora(const struct tr_train_params *p, struct tr_lora *lora);
/* What the optimizer of these options keeps on disk. */
enum tr_state_kind run_state_kind(const struct tr_train_params *p);
enum tr_master run_master(const struct tr_train_params *p);

/* The rate of the optimizer for a model of this size, where none is given. */
double run_default_rate(const struct tr_run *run);

/* Opens and checks the model folder or shape; the run's model is its table. */
int run_open_source(struct tr_run *run);
/* The plan for batches of at most so many tokens, with grains of at most so many. */
int run_make_plan(struct tr_run *run, int32_t batch_tokens, int32_t grain_tokens);
/* The same and run_place, in place of what was placed, once what the plan rests on has changed. */
int run_place_anew(struct tr_run *run);
/* --clip-method, as far as the options say it; else by predicted time, once there is a plan and the
 * visits are placed. A new run's store gets room for the gradients (clip_method.c). */
int run_resolve_clip(struct tr_run *run);
int32_t run_clip_group(const struct tr_run *run); /* of group:N; 0: another way */
/* How the norm is known before what it clips, and what goes through tables twice, and where their
 * gradients are in between; "" where there is nothing of the kind (passes.c). */
const char *run_clip_text(const struct tr_run *run, char *text, size_t room);
const char *run_sweeps_text(const struct tr_run *run);
/* Makes room for gradients in the store of a run that is not there yet, or takes it away; the run
 * has to be placed anew (run_place_anew). */
int run_park(struct tr_run *run, enum tr_parked parked);
/* run_make_plan with updates where --update-on lets them be, on the device if there is room
 * (update_on.c). */
int run_make_any_plan(struct tr_run *run, int32_t batch_tokens, int32_t grain_tokens);
/* Once all is placed: clip method, place of the updates and durability, as far as the options leave
 * them open, together by predicted time (choose.c). figures may be NULL. Where both costs are asked
 * for or needed they are left in run->durable; nothing there without figures. */
int run_choose(struct tr_run *run, const struct tr_figures *figures, const struct tr_batch *batch,
               int weigh_durability);
/* --durability auto by the costs in run->durable: is every step durable? (durability.c) */
int run_is_step_durable(const struct tr_run *run);
/* What auto has become, and why. */
const char *run_durability_text(const struct tr_run *run, char *text, size_t room);
void run_print_durability(FILE *f, const struct tr_run *run); /* with both costs; for plan */
json_t *run_durability_json(const struct tr_run *run);
int run_choose_here(struct tr_run *run); /* run_choose on this machine, own batches (foresee.c) */
/* What the run's steps will take, into run->foreseen (foresee.c). */
int run_foresee(struct tr_run *run);
/* Figures of the run's device, where `bench` has made them; -ENOENT: there are none. */
int run_figures(const struct tr_run *run, struct tr_figures *out);
/* Finds the drives of the run's folders among those of the figures, and makes the figures theirs
 * (drives.c). */
int run_find_drives(const struct tr_run *run, struct tr_figures *f);
/* Of another machine: a folder on each of its drives. */
void run_all_drives(struct tr_figures *f);
/* 1: there are figures of the drives of all folders, from which come the speeds by which a new
 * store is dealt out; else it measures. */
int run_drive_speeds(const struct tr_run *run, double speed[TR_STORE_FOLDERS]);
/* A step that was done; all of them, when every byte of theirs has been written. */
void run_measure_step(struct tr_run *run, const struct tr_step_report *report);
int run_measure_end(struct tr_run *run);
/* The engine is closed, and another will go on with the next step. */
void run_measure_engine(struct tr_run *run);

/* The nearest existing folder at or above `path`, and the device it is on. */
int run_nearest_folder(const char *path, char *out, size_t room, dev_t *device);
/* Is there room for the store and the export? (a new run) */
int run_check_disk(const struct tr_run *run);
/* And for a snapshot beside the file that block inputs spill to? That has no name while the model
 * is exported, and must find its place again afterwards. */
int run_check_snapshot(const struct tr_run *run);
int run_write_options(const struct tr_run *run);
/* The options of the run that is here already must be the same where they make its identity, and so
 * must its data. */
int run_check_options(struct tr_run *run);
int run_write_plan(const struct tr_run *run);
/* What plan.json says that is true of the run from now on, too; before it is written anew. */
void run_recall(struct tr_run *run);
/* One where a commit record has been passed over; before the lines of metrics.jsonl go that tell of
 * it. */
void run_note_torn(const struct tr_run *run);
/* A notice where the run's device before had other bits than this one. */
void run_note_bits(const struct tr_run *run);
/* Adds to RUN/matmuls.txt what the device has chosen by shape; a notice where it chose otherwise
 * before (choices.c). */
int run_record_choices(const struct tr_run *run);
/* Writes RUN/times.txt where the device has looked at what its ops take. */
int run_record_times(const struct tr_run *run);
/* Removes what this call has made in the run folder (`folder`: and the folder itself). */
void run_unmake(struct tr_run *run, int folder);
void run_make_summary(struct tr_run *run);
/* Says what about drives and memory is slower or less safe than it could be. */
void run_note_places(const struct tr_run *run);

#endif
