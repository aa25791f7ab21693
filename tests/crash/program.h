/* SPDX-License-Identifier: Apache-2.0
 *
 * The program itself as the crash tests run it: a tiny job whose parameters stream through the
 * smallest device that would do, one life after another, each under a watchdog.
 */
#ifndef TESTS_CRASH_PROGRAM_H
#define TESTS_CRASH_PROGRAM_H

#include <stdint.h>
#include <sys/types.h>

#define JOB_OPTIONS 8
#define JOB_STEPS   6

struct job {
    const char *name;
    const char *options[JOB_OPTIONS]; /* of train; NULL ends them */
    int clips;                        /* by a second backward pass */
    int steps;                        /* 0: JOB_STEPS */
    int folders;                      /* 2: the store is RUN/store:RUN/second */
};

/* SCRATCH/model and SCRATCH/data.jsonl, once, with so many layers. */
void program_make_inputs(int layers);

/* What `job` is told beside its options: where the run is, and its device's budget in bytes. */
struct place {
    const char *run;
    const char *store; /* NULL: in the run */
    uint64_t device_memory;
};

/* The least device memory of the job, as the program itself names it. */
uint64_t program_least_memory(const struct job *job);

/* Starts `tailrace train` (resume: `train --resume RUN`); what it says goes to SCRATCH/said. */
pid_t program_start(const struct job *job, const struct place *place, int resume);
/* From now on what it says goes into this file instead; -1: as before. */
void program_speak_to(int fd);
/* Starts tailrace with these arguments, NULL at their end. */
pid_t program_start_with(const char *const *arguments);
/* Its exit code, or -SIGNAL; SIGALRM is the watchdog's. */
int program_wait(pid_t pid);
int program_run(const struct job *job, const struct place *place, int resume);
/* All that the last one said, and of it the lines that are errors: how many, and the first. */
const char *program_said(void);
int program_errors(const char **first);

/* The folders of the store of a job's run, for --store and to open it. */
const char *program_store(const struct job *job, const char *run);

/* The step that the store's newest commit names; -1: there is none yet. */
int64_t program_stands_at(const char *store);
/* Whole lines of RUN/metrics.jsonl, which must be those of the steps from 1 on, one of each. */
int program_metrics_lines(const char *run);
uint64_t program_model_hash(const char *run);
/* Names in the run folder that hold ".tmp". */
int program_leavings(const char *run);

#endif
