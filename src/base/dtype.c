/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/dtype.h"

#include <errno.h>
#include <strings.h>

#include "src/base/err.h"

static const struct {
    const char *name, *hf, *torch;
} names[] = {
    [TR_F32] = {"f32", "F32", "float32"},
    [TR_BF16] = {"bf16", "BF16", "bfloat16"},
    [TR_F16] = {"f16", "F16", "float16"},
    [TR_8BIT] = {"8bit", "U8", "uint8"},
};

const char *tr_dtype_name(enum tr_dtype t)
{
    return names[t].name;
}

const char *tr_dtype_hf(enum tr_dtype t)
{
    return names[t].hf;
}

int tr_dtype_check(int dtype)
{
    if (dtype >= -1 && dtype < TR_DTYPES)
        return 0;
    return tr_error(-EINVAL, "--dtype: weights are f32, bf16 or f16");
}

int tr_dtype_parse(const char *s, enum tr_dtype *out)
{
    for (int t = 0; t < TR_DTYPES; t++) {
        if (!strcasecmp(s, names[t].name) || !strcasecmp(s, names[t].torch)) {
            *out = (enum tr_dtype)t;
            return 0;
        }
    }
    if (!strcasecmp(s, "fp16") || !strcasecmp(s, "half")) {
        *out = TR_F16;
        return 0;
    }
    return -EINVAL;
}
