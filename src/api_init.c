/* SPDX-License-Identifier: Apache-2.0
 *
 * The public call that makes a random model folder: checks what is missing and hands on.
 */
#include "src/base/err.h"
#include "src/checkpoint/init.h"
#include "src/tailrace.h"
#include "src/text/tokenizer.h"

static int count_tokens(const char *folder, int32_t *out)
{
    struct tr_tokenizer *t;
    int r = tr_tokenizer_open(&t, folder);

    if (r < 0)
        return r;
    *out = tr_tokenizer_vocab(t);
    tr_tokenizer_close(t);
    return 0;
}

int tr_init_model(const struct tr_init_params *p)
{
    int32_t tokens = 0;
    int r;

    if ((r = tr_dtype_check((int)p->dtype - 1)) < 0 || (r = tr_need(p->arch, "arch")) < 0 ||
        (r = tr_need(p->out, "out")) < 0 ||
        (p->tokenizer && (r = count_tokens(p->tokenizer, &tokens)) < 0))
        return r;
    return tr_init_folder(&(struct tr_init_folder_params){
        .arch = p->arch,
        .out = p->out,
        .tokenizer = p->tokenizer,
        .tokens = tokens,
        .seed = p->seed,
        .dtype = p->dtype == TR_TYPE_SOURCE ? TR_F32 : (enum tr_dtype)(p->dtype - 1)});
}
