/* SPDX-License-Identifier: Apache-2.0
 *
 * Import and export as a run does them: TMP/r-store and TMP/r-source.
 */
#ifndef TESTS_MODEL_RUN_H
#define TESTS_MODEL_RUN_H

#include "src/checkpoint/export.h"
#include "src/checkpoint/import.h"
#include "tests/model/test.h"

/* Imports p (model or arch, dtype, state filled in) into them. */
static inline int run_import(const char *temp, struct tr_import_params p)
{
    char store[128], keep[128];

    snprintf(store, sizeof(store), "%s/r-store", temp);
    snprintf(keep, sizeof(keep), "%s/r-source", temp);
    p.store = store;
    p.keep = keep;
    p.generations = 2;
    p.payload = "cursor";
    p.payload_bytes = 6;
    return tr_import(&p);
}

static inline int run_export(const char *temp, const char *out, int dtype)
{
    char keep[128];
    struct tr_store *s;
    int r = tr_store_open(&s, make_path(temp, "r-store"), TR_STORE_READ);

    snprintf(keep, sizeof(keep), "%s/r-source", temp);
    if (r == 0) {
        r = tr_export(&(struct tr_export_params){
            .store = s, .keep = keep, .out = make_path(temp, out), .dtype = dtype});
        tr_store_close(s);
    }
    return r;
}

static inline void run_forget(const char *temp)
{
    make_clean(make_path(temp, "r-store"));
    make_clean(make_path(temp, "r-source"));
}

#endif
