/* SPDX-License-Identifier: Apache-2.0
 *
 * By way of f32, which holds every value of the two others: one rounding at most. An import or an
 * export is bound by the disk, so there is no faster twin. A value that becomes infinite is counted
 * and not written off: a model with one infinite weight answers nothing but NaN.
 */
#include <errno.h>
#include <math.h>

#include "src/checkpoint/shards.h"

int tr_convert(void *out, enum tr_dtype to, const void *in, enum tr_dtype from, size_t n)
{
    int overflow = 0;

    if (to == from) {
        memcpy(out, in, n * tr_dtype_size(to));
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        float x = tr_load_f32(in, from, i);

        tr_store_f32(out, to, i, x);
        overflow |= isfinite(x) && isinf(tr_load_f32(out, to, i));
    }
    return overflow ? -ERANGE : 0;
}
