/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/plan/cpu_figures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "src/base/mem.h"

void figures_of_cpu(struct tr_figures *f, const char *bits)
{
    assert_int_equal(tr_figures_named("h200", &(struct tr_figures_changes){.drives = 0}, f), 0);
    snprintf(f->device, sizeof(f->device), "%s", bits);
    f->cuda = 0;
    f->grain_tokens = TR_GRAIN_CPU;
    f->threads = 1;
}

void keep_figures(const struct tr_figures *f)
{
    char *path = tr_figures_path(1);

    assert_int_equal(tr_figures_write(path, f), 0);
    tr_free(TR_MEM_MISC, path);
}
