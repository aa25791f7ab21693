/* SPDX-License-Identifier: Apache-2.0
 *
 * What a run folder says of its store. Two papers name it: plan.json, and what is kept of the
 * source. One that is damaged says nothing, nor does plan.json that an import killed right after
 * its commit has not left; what is kept of an older run does not say it. One of them is enough, for
 * it or against it; where both are silent, that the store is the run's is known by its layout
 * alone.
 */
#include "src/run/papers.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/keep.h"
#include "src/plan/plan_file.h"

static int refuse_store(const struct tr_store *store, const char *run, const char *paper,
                        const char *uuid)
{
    return tr_error(-EINVAL, "%s: is the store of another run; %s/%s names the store %s",
                    tr_store_folder(store), run, paper, uuid);
}

int run_check_store(const char *run, const struct tr_store *store)
{
    const char *uuid = tr_store_uuid(store);
    char *keep = tr_path(run, "source"), kept[TR_KEEP_UUID];
    struct tr_plan_file plan;
    int r = keep ? tr_plan_file_read(run, &plan) : -ENOMEM;

    if (r == -EINVAL) {
        plan.store_uuid[0] = 0;
        r = 0;
    }
    if (r == 0) {
        tr_keep_store_uuid(keep, kept);
        if (!strcmp(plan.store_uuid, uuid) || !strcmp(kept, uuid))
            r = 0;
        else if (plan.store_uuid[0])
            r = refuse_store(store, run, "plan.json", plan.store_uuid);
        else if (kept[0])
            r = refuse_store(store, run, "source/" TR_KEEP_FILE, kept);
    }
    tr_free(TR_MEM_MISC, keep);
    return r;
}
