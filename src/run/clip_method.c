/* SPDX-License-Identifier: Apache-2.0
 *
 * Which way to an exact global norm. Both have the same bits, so the machine may decide, and does
 * so once: when the store is made, which has room for waiting gradients or has not. Afterwards the
 * store says which way it is.
 *
 * (A norm of a few layers, group:N, is neither: it is known when they are, and never asked of all.)
 *
 * What the options leave open is chosen by predicted time (src/run/choose.c).
 */
#include <string.h>

#include "src/base/err.h"
#include "src/run/open.h"

int run_park(struct tr_run *run, enum tr_parked parked)
{
    int r = tr_import_park(run->import, parked);

    run->model = tr_import_model(run->import);
    return r;
}

static enum tr_parked wanted(const struct tr_train_params *p)
{
    return p->parked_dtype == TR_TYPE_BF16 ? TR_PARKED_BF16 : TR_PARKED_F32;
}

/* A run that is there already has what its store has. */
static void take_stored(struct tr_run *run)
{
    struct tr_train_params *p = &run->params;
    enum tr_parked parked = run->model->parked;

    if (p->clip_method == TR_CLIP_AUTO)
        p->clip_method = parked ? TR_CLIP_DEFERRED : TR_CLIP_TWO_PASS;
    if (parked && p->parked_dtype == TR_TYPE_SOURCE)
        p->parked_dtype = parked == TR_PARKED_BF16 ? TR_TYPE_BF16 : TR_TYPE_F32;
}

int32_t run_clip_group(const struct tr_run *run)
{
    return run->params.clip_method > TR_CLIP_GROUP
               ? (int32_t)run->params.clip_method - (int32_t)TR_CLIP_GROUP
               : 0;
}

int run_resolve_clip(struct tr_run *run)
{
    struct tr_train_params *p = &run->params;

    if (run_clip_group(run) && run->model->dtype == TR_F16)
        return tr_error(-EINVAL, "--clip-method group: f16 storage needs to see an overflow before "
                                 "the first update; two-pass and deferred do");
    if (p->clip_norm <= 0 && p->clip_method != TR_CLIP_AUTO)
        return tr_error(-EINVAL, "--clip-method: there is no --clip-norm");
    if (p->clip_norm > 0 && !run->import)
        take_stored(run);
    if (p->parked_dtype != TR_TYPE_SOURCE && p->clip_method != TR_CLIP_DEFERRED)
        return tr_error(-EINVAL, "--parked-dtype: only --clip-method deferred parks gradients");
    if (p->clip_method != TR_CLIP_DEFERRED)
        return 0;
    if (p->parked_dtype == TR_TYPE_SOURCE)
        p->parked_dtype = TR_TYPE_F32;
    if (!run->import)
        return 0;
    return run_park(run, wanted(p));
}
