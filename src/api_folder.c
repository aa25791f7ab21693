/* SPDX-License-Identifier: Apache-2.0
 *
 * The public calls about model folders: a random one, and what is in one. No logic.
 */
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/checkpoint/init.h"
#include "src/run/find.h"
#include "src/run/inspect.h"
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

int tr_inspect_path(const char *path, int json, char **out)
{
    json_t *found = NULL;
    char *store = NULL;
    int r;

    *out = NULL;
    if ((r = tr_need(path, "PATH")) == 0 && run_is_folder(path))
        r = run_store_path(path, &store);
    if (r == 0)
        r = tr_inspect(path, store, &found);
    tr_free(TR_MEM_MISC, store);
    if (r < 0)
        return r;
    if (json) {
        *out = json_dumps(found, JSON_INDENT(2));
    } else {
        *out = tr_inspect_text(found);
    }
    json_decref(found);
    return *out ? 0 : tr_error(-ENOMEM, "out of memory");
}
