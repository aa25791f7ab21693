/* SPDX-License-Identifier: Apache-2.0
 *
 * The one thing that an export may change in config.json: the dtype, where the weights have another
 * one than they came with. Numbers elsewhere in the file may be spelled differently afterwards
 * (1e-06 as 1.0e-6), their values are the same.
 */
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/checkpoint/keep.h"

const char *tr_keep_type_name(enum tr_dtype t)
{
    static const char *const names[TR_DTYPES] = {
        [TR_F32] = "float32", [TR_BF16] = "bfloat16", [TR_F16] = "float16"};

    return names[t];
}

static int change(json_t **o, enum tr_dtype type)
{
    const char *name = tr_keep_type_name(type);
    int has_new = json_object_get(*o, "dtype") != NULL;
    int has_old = json_object_get(*o, "torch_dtype") != NULL || !has_new;

    if (has_new)
        tr_json_add(o, "dtype", json_string(name));
    if (has_old)
        tr_json_add(o, "torch_dtype", json_string(name));
    return *o ? 0 : tr_error(-ENOMEM, "out of memory");
}

int tr_keep_set_type(const char *folder, enum tr_dtype type)
{
    char *path = tr_path(folder, "config.json");
    json_t *o = NULL;
    int r = path ? tr_json_read(path, 1u << 20, &o) : -ENOMEM;

    if (r == 0)
        r = change(&o, type);
    if (r == 0)
        r = tr_json_write(path, o);
    json_decref(o);
    tr_free(TR_MEM_MISC, path);
    return r;
}
