/* SPDX-License-Identifier: Apache-2.0
 *
 * The file of figures (invariant 9). What passes must predict finite seconds that are not negative.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "src/plan/figures.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tr_figures f;

    if (tr_figures_parse((const char *)data, size, "input", &f) < 0)
        return 0;
    for (int k = 0; k < TR_OP_KINDS; k++) {
        double s = tr_figures_seconds(&f, &(struct tr_op){.kind = (enum tr_op_kind)k});

        if (!isfinite(s) || s < 0)
            abort();
    }
    tr_figures_sum(&f);
    for (uint32_t i = 0; i < f.n_drives; i++) {
        double speed = tr_drive_speed(&f.drive[i].rates, 2, 1);

        if (!isfinite(speed) || !(speed > 0) || !isfinite(f.read) || !(f.write > 0))
            abort();
    }
    return 0;
}
