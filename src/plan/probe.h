/* SPDX-License-Identifier: Apache-2.0
 *
 * Measures the machine: probe_ops.c what each op costs on the device, through its table;
 * probe_memory.c what a core does with memory; probe_drive.c the drive through the queue and the
 * I/O engine of the offload engine, and what its work costs compute. Medians, for that is what a
 * run will meet. rehearse.c corrects them by two short runs.
 */
#ifndef TR_SRC_PLAN_PROBE_H
#define TR_SRC_PLAN_PROBE_H

#include <stdio.h>

#include "src/base/clock.h"
#include "src/plan/figures.h"
#include "src/run/devices.h"
#include "src/tailrace.h"

/* A figure that goes into the table and not into a prediction. */
#define PROBE_DEPTHS 4
struct probe_depth {
    unsigned depth;
    struct tr_drive_ways ways;
};

struct probe {
    const struct tr_bench_params *params;
    struct tr_device_choice choice;
    struct tr_device *device;
    struct tr_device_info info;
    char *arena;
    uint64_t used; /* of the arena, by the op at hand */
    struct tr_figures figures;
    struct probe_depth depth[TR_STORE_FOLDERS][PROBE_DEPTHS]; /* of each drive, alone */
    double residual[TR_COST_ROWS][TR_WIDTHS]; /* median error of the fit; negative: not measured */
    char drive[96];                           /* how the I/O engine describes itself */
    double compute_factor, drive_factor;      /* seconds, bytes/s: of a run to what was probed */
};

double probe_median(double *values, int n); /* sorts them */
/* Does something on the device and waits for it. */
typedef int probe_fn(struct probe *p, void *arg);
/* Median seconds of one fn: as many rounds as take about 20 ms, a few times. */
int probe_time(struct probe *p, probe_fn *fn, void *arg, double *seconds);
void probe_log(const struct probe *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

int probe_ops(struct probe *p);
int probe_copies(struct probe *p);
int probe_memory(struct probe *p);
uint64_t probe_hash(const void *p, uint64_t bytes); /* as every byte of a run is hashed */
int probe_update(struct probe *p);                  /* on the cpu, whatever the device */
/* A folder for each drive, of several on one file system the first: before anything is measured.
 * -EINVAL also where the environment names no engine for them. */
int probe_find_drives(struct probe *p);
int probe_drive(struct probe *p);
void probe_rehearse(struct probe *p); /* corrects the figures; the device is closed */
/* A product that takes a while, for what runs beside it; queued, not waited for. */
int probe_queue_product(struct probe *p);

#endif
