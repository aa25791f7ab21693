/* SPDX-License-Identifier: Apache-2.0
 *
 * Log-likelihoods: of many continuations together, each a document of its own, as many as a batch
 * holds in one pass over the layers. The passes are those of training, so a model beyond memory is
 * scored too, and a run can score between two of its steps.
 */
#ifndef TR_SRC_INFER_SCORE_H
#define TR_SRC_INFER_SCORE_H

#include "src/run/run.h"

struct score_request {
    const int32_t *ids;
    int32_t n, first; /* ids[first .. n) is what is scored, given those before; first >= 1 */
    double sum;       /* result: its log-likelihood */
};

/* Requests longer than `most` tokens of input lose their beginning. */
int score_requests(struct tr_run *run, struct score_request *requests, int64_t n, int32_t most);

/* Cuts rows into grains of at most `most` tokens, which no row exceeds. A forward pass has the same
 * bits whatever its grains. Returns how many. */
int32_t run_cut_grains(const int32_t *row_start, int32_t rows, int32_t most, int32_t *out);

#endif
