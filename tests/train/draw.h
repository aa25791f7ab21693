/* SPDX-License-Identifier: Apache-2.0
 *
 * A training whose placement is drawn from a seed. What is trained (a subject) settles the bits;
 * everything in the table of dimensions (draw.c) may only change time and memory. A run is cut into
 * parts: each begins where the one before was stopped or killed, and draws its own placement, as
 * all of it may be given anew when a run goes on.
 *
 * A new way of placing things is one row of that table. What is drawn for a row hangs on the seed,
 * the number of the draw and the name of the row alone, so rows that come later leave the others as
 * they were.
 */
#ifndef TR_TESTS_TRAIN_DRAW_H
#define TR_TESTS_TRAIN_DRAW_H

#include "src/base/device.h"
#include "tests/train/common.h"

#define DRAW_STEPS 4
#define DRAW_PARTS 3

/* What is trained. */
struct subject {
    const char *name;
    struct tiny shape;
    enum tr_type dtype;
    enum tr_optimizer optimizer;
    double lr, clip_norm;
    int batch_size, seq_len;
    const char *freeze;
    enum tr_master_choice master;
};

struct part {
    struct tr_train_params p;
    int steps;  /* the part ends after so many; the last one when all are done */
    int killed; /* by SIGKILL, in a process of its own; else a clean stop */
    /* Thousandths of the way from the smallest budget to the one with which nothing moves. */
    unsigned share;
    unsigned host_share; /* and to the one with which all that moves is at home in host memory */
};

struct draw {
    uint64_t seed;
    uint32_t number;
    const struct subject *subject;
    uint64_t resident; /* device memory with which nothing needs to move */
    uint64_t stored;   /* bytes of all that may have a home */
    int n_parts;
    struct part part[DRAW_PARTS];
    char text[2048]; /* what was drawn, for people */
    /* Called when a part's run is open; may spoil its device. NULL: none. */
    void (*spoil)(struct tr_device *device, int part);
};

/* Makes the subject's model and data in the scratch folder, where they are not there yet. */
void draw_make_inputs(const struct subject *s);
/* Everything resident, in one part, of the subject: trains so, and sets `resident`, `stored` and
 * the part.
 * The hash of the exported model. */
uint64_t draw_reference(struct draw *d);
/* Draws all dimensions from d's seed and number; subject and resident are set. */
void draw_all(struct draw *d);
/* Trains as drawn. The hash of the exported model, or 0 where a part failed (tr_message). */
uint64_t draw_play(const struct draw *d);
/* Parts so far that had spans from homes in host memory, and others from the drives again. */
uint32_t draw_mixed(void);

#endif
