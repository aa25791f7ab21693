/* SPDX-License-Identifier: Apache-2.0
 *
 * The device that a test runs on: TR_TEST_DEVICE is cpu (also where it is unset), cuda, or cuda:N.
 * For cuda TAILRACE_CUDA_MODULE may name the module that runs on the CPU (tests/cuda/device).
 */
#ifndef TR_TESTS_DEVICE_WHICH_H
#define TR_TESTS_DEVICE_WHICH_H

#include "src/base/device.h"

/* What the module that runs on the CPU lets a test do (tests/cuda/runtime/fake.h). */
struct test_fake {
    void (*configure)(const char *words);
    void (*fail_call)(uint64_t n, const char *how);
    uint64_t (*calls)(void);
    unsigned (*deepest)(void);
    size_t (*leaks)(void);
    const char *(*kernel_error)(void);
};

int test_device_is_cpu(void);
/* Of the module in use; NULL where it drives a real GPU, or where the device is the cpu. */
const struct test_fake *test_device_fake(void);
/* Whether delay_seed has an effect. */
int test_device_delays(void);
/* Opens GPU p->ordinal with an arena of at least that size; p's memory_bytes is set. */
int test_device_open_cuda(struct tr_device **out, struct tr_device_params *p, uint64_t arena_bytes);
/* Opens the device with an arena of at least that size; p's memory_bytes and ordinal are set. */
int test_device_open(struct tr_device **out, struct tr_device_params *p, uint64_t arena_bytes);

#endif
