/* SPDX-License-Identifier: Apache-2.0
 *
 * The public call that says what is in a folder or file. No logic.
 */
#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/run/find.h"
#include "src/run/inspect.h"
#include "src/tailrace.h"

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
        *out = tr_json_text(found, JSON_INDENT(2));
    } else {
        *out = tr_inspect_text(found);
    }
    json_decref(found);
    return *out ? 0 : tr_error(-ENOMEM, "out of memory");
}
