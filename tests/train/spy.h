/* SPDX-License-Identifier: Apache-2.0
 *
 * A device before the cpu device that looks at every update a run makes. Beside each it makes the
 * same update once more in f32 alone: from the stored values at hand, which says what of the wanted
 * update became real; or from values of its own (twins), which no rounding has ever touched: f32
 * training whose passes see the run's weights.
 */
#ifndef TR_TESTS_TRAIN_SPY_H
#define TR_TESTS_TRAIN_SPY_H

#include "src/run/run.h"

enum spy_task { SPY_SHARES, SPY_TWINS };

struct spy_share {
    double wanted2; /* |dW_wanted|^2 */
    double stored;  /* <dW_real, dW_wanted>, of what is stored: weights with their masters */
    double seen;    /* of the weights alone */
    double noise2;  /* variance of `stored` where bf16 weights are rounded stochastically */
};

struct spy_twin;

struct spy {
    struct tr_device base; /* what the run's pass is given */
    struct tr_device_ops ops;
    struct tr_device *inner;
    enum spy_task task;
    int forget;              /* the defect: remainders are zero after each update */
    struct spy_share *share; /* (steps) */
    uint64_t steps;          /* room; updates of later ones are not looked at */
    struct spy_twin *twins;
    int64_t compared, wrong; /* values of twins, at the end of each update */
    double loss;             /* the caller's */
};

/* Between the run, which is on the cpu device, and its device. */
void spy_open(struct spy *s, struct tr_run *run, enum spy_task task, uint64_t steps);
void spy_close(struct spy *s);

/* The mean over all steps of the share of what was wanted. */
double spy_mean(const struct spy *s, int seen);
/* Its standard error under stochastic rounding. */
double spy_error(const struct spy *s);

#endif
