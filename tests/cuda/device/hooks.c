/* SPDX-License-Identifier: Apache-2.0
 *
 * What the module that runs on the CPU exports beside the module's own symbol: the controls of the
 * fake runtime inside it (tests/device/which.h).
 */
#include "tests/cuda/runtime/fake.h"
#include "tests/device/which.h"

__attribute__((visibility("default"))) const struct test_fake *tr_test_fake(void);

const struct test_fake *tr_test_fake(void)
{
    static const struct test_fake fake = {.configure = fake_configure,
                                          .fail_call = fake_fail,
                                          .calls = fake_calls,
                                          .deepest = fake_deepest,
                                          .leaks = fake_leaks,
                                          .kernel_error = fake_last_shim_error};

    return &fake;
}
