/* SPDX-License-Identifier: Apache-2.0
 *
 * In words: how a step comes to the norm of its gradients, and what it goes through twice for
 * statistics of a whole tensor.
 */
#include <stdio.h>

#include "src/run/open.h"

const char *run_clip_text(const struct tr_run *run, char *text, size_t room)
{
    static const char *const ways[] = {[TR_CLIP_AUTO] =
                                           "by a second backward pass", /* adapters alone */
                                       [TR_CLIP_TWO_PASS] = "by a second backward pass",
                                       [TR_CLIP_DEFERRED] = "deferred, gradients wait in the store",
                                       [TR_CLIP_GROUP] = "by groups, an approximation"};
    const struct tr_train_params *p = &run->params;
    enum tr_clip method = p->clip_method < TR_CLIP_GROUP ? p->clip_method : TR_CLIP_GROUP;
    int model = p->clip_norm > 0, adapters = p->lora_clip_norm > 0;
    char its[48] = "", their[48] = "";

    text[0] = 0;
    if (model)
        snprintf(its, sizeof(its), "norm of at most %g", p->clip_norm);
    if (adapters)
        snprintf(their, sizeof(their), "%s of at most %g",
                 model ? "; adapters'" : "the adapters' norm alone,", p->lora_clip_norm);
    if (model || adapters)
        snprintf(text, room, "%s%s, %s", its, their,
                 run->plan.parked ? "all gradients stay on the device until it is known"
                                  : ways[method]);
    return text;
}

const char *run_sweeps_text(const struct tr_run *run)
{
    uint32_t i = 0;

    while (i < run->visits.n && run->visits.units[i].sweep != TR_SWEEP_SUM)
        i++;
    if (i == run->visits.n)
        return "";
    return run->model->parked ? "tables twice, for their sums; gradients wait in the store"
           : run->plan.parked ? "tables twice, for their sums; all gradients stay on the device"
           : run->plan.held   ? "tables twice, for their sums; a table's gradient stays in between"
                              : "tables twice, for their sums; a table's gradient is made again";
}
