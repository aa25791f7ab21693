/* SPDX-License-Identifier: Apache-2.0
 *
 * The public call that makes a random model folder: checks what is missing and hands on.
 */
#include "src/base/err.h"
#include "src/checkpoint/init.h"
#include "src/tailrace.h"

int tr_init_model(const struct tr_init_params *p)
{
    int r;

    if ((r = tr_dtype_check((int)p->dtype - 1)) < 0 || (r = tr_need(p->arch, "arch")) < 0 ||
        (r = tr_need(p->out, "out")) < 0)
        return r;
    return tr_init_folder(&(struct tr_init_folder_params){
        .arch = p->arch,
        .out = p->out,
        .tokenizer = p->tokenizer,
        .seed = p->seed,
        .dtype = p->dtype == TR_TYPE_SOURCE ? TR_F32 : (enum tr_dtype)(p->dtype - 1)});
}
