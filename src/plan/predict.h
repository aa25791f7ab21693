/* SPDX-License-Identifier: Apache-2.0
 *
 * What a step will take: the plan's bytes, and, where figures of the machine are known, its
 * seconds. The step's own code runs on a device that only counts (src/plan/counter.h), visit by
 * visit; then the visits' seconds are played with the schedule on a virtual clock
 * (src/plan/simulate.h).
 */
#ifndef TR_SRC_PLAN_PREDICT_H
#define TR_SRC_PLAN_PREDICT_H

#include <jansson.h>
#include <stdio.h>

#include "src/plan/figures.h"
#include "src/plan/simulate.h"
#include "src/text/data.h"

struct tr_run;
struct tr_stripes;

struct tr_settle_bytes {
    uint64_t read, written;
    uint64_t kept;   /* changed, and left in homes until there is a commit */
    uint64_t spared; /* of the step's kept bytes: changed once more before they are written */
};

/* Steps that are played, the last of which stands for all that follow. Slots are empty before the
 * first one, and what it leaves in them may suit the second better than any other. */
#define TR_PREDICT_STEPS 3

struct tr_prediction {
    int timed; /* with figures: else all seconds are 0 */
    char machine[64];
    int64_t tokens;
    int64_t commit_every; /* steps; 0: there is none but the last */
    double arithmetic;    /* seconds of all compute of a step */
    /* With a commit every so many steps, whose writes go on beside the steps that follow: seconds
     * of the first of those, and how much longer all together are than without; else 0. */
    double after_commit, commit_extra;
    char limit[128];                  /* what limits a step, in words */
    char drive[TR_STORE_FOLDERS][64]; /* the drives' names, or their ends, of sim.drive */
    uint32_t n_folders;               /* of the store; 0: all are on one drive */
    unsigned char drive_of[TR_STORE_FOLDERS];
    int strangers; /* drives that were not measured: taken for one */
    struct tr_sim_result sim;
    struct tr_settle_bytes settle[TR_PREDICT_STEPS];  /* tr_prediction_settle */
    uint64_t device_bytes;                            /* peak, the device's own included */
    uint64_t staging_bytes, tier_bytes, buffer_bytes; /* pinned host memory */
    int apart;                                        /* updates run on the cpu */
    uint64_t apart_bytes;       /* pinned host memory for that: slots of state and buffers */
    uint64_t disk_bytes;        /* of the store and what is spilled to it */
    uint64_t parked_disk_bytes; /* of the store: gradients that wait for the next step */
    uint64_t spill_host_bytes, spill_disk_bytes; /* scratch: of tier_bytes, of disk_bytes */
    uint64_t least_host; /* the smallest --host-memory, with the data as far as it has been read */
    uint64_t least_device; /* the smallest budget with these options; 0: not asked for */
    double hides_from;     /* tokens a step from which arithmetic hides the rest; 0: unknown */
    int hides_fits;        /* a step of so many has room on the device */
};

/* The run has a model, resolved options, device_info, a plan and visits (run_place). figures may be
 * NULL: bytes only. The batch tells tokens, documents and grains. */
int run_predict(struct tr_run *run, const struct tr_figures *figures, const struct tr_batch *batch,
                struct tr_prediction *out);
/* Bytes that so many steps read, the first one with empty slots. */
uint64_t tr_prediction_read(const struct tr_prediction *p, int64_t steps);
/* Bytes that so many steps write; what the commit after this one (from 1) adds to that. */
uint64_t tr_prediction_written(const struct tr_prediction *p, int64_t steps);
uint64_t tr_prediction_kept(const struct tr_prediction *p, int64_t step);
/* To finish the last of so many steps (src/train/pending.c): by what they leave in the slots. */
const struct tr_settle_bytes *tr_prediction_settle(const struct tr_prediction *p, int64_t steps);
/* Seconds of a step, the mean of many: with their commits. */
double tr_prediction_seconds(const struct tr_prediction *p);
/* Both of one drive, without what commits and the end of the last step add. */
struct tr_drive_bytes {
    uint64_t read, written;
};
struct tr_drive_bytes tr_prediction_drive(const struct tr_prediction *p, uint32_t drive,
                                          int64_t steps);
/* Bytes written to a drive a step, what the commits among many steps write included. */
double tr_prediction_drive_wear(const struct tr_prediction *p, uint32_t drive);
/* Steps until the first drive is worn out; life: bytes of each, or of every one where only one is
 * said. 0: not asked, or nothing is written. */
double tr_prediction_life(const struct tr_prediction *p, const double life[TR_STORE_FOLDERS]);
/* How the store would be dealt out over the folders of the figures (src/run/drives.c); to be freed
 * with tr_stripes_free. */
int run_deal_out(const struct tr_run *run, const struct tr_figures *f, struct tr_stripes *out);
/* How what spills would be dealt out over the folders that these stripes are on: in their
 * proportion, as far as there is room. Nothing where it has been, where nothing spills, and in one
 * folder. */
int run_deal_out_spills(const struct tr_run *run, const struct tr_stripes *store,
                        struct tr_stripes *out);
/* The rest, which takes longer: least_device, hides_from, hides_fits. */
int run_predict_limits(struct tr_run *run, const struct tr_figures *figures,
                       const struct tr_batch *batch, struct tr_prediction *out);
/* ---- as text (predict_text.c) ---- */

/* life: as above, or NULL. */
json_t *tr_prediction_json(const struct tr_prediction *p, const double *life);
/* "predicted: ..." with a newline, or "" without figures. */
const char *tr_prediction_line(const struct tr_prediction *p, char *text, size_t room);
void tr_prediction_print(FILE *f, const struct tr_prediction *p, const double *life);
/* Fills in what limits a step, in words. */
void tr_prediction_name_limit(struct tr_prediction *p);

/* A batch of full rows, one document each. */
int tr_predict_batch(int64_t rows, int64_t row_tokens, int32_t grain_tokens,
                     struct tr_batch *batch);
void tr_predict_batch_free(struct tr_batch *batch);

#endif
