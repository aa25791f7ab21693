/* SPDX-License-Identifier: Apache-2.0
 *
 * The folder that each test of a program has for itself: a fresh one, removed behind it.
 */
#ifndef TESTS_MODEL_TEMP_H
#define TESTS_MODEL_TEMP_H

#include "tests/model/make.h"

static char temp[64];

static inline int fresh_temp(void **state)
{
    (void)state;
    make_temp(temp);
    return 0;
}

static inline int clean_temp(void **state)
{
    (void)state;
    make_clean(temp);
    return 0;
}

#endif
