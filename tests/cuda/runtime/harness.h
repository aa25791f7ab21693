/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the fake runtime share.
 */
#ifndef TR_TESTS_CUDA_HARNESS_H
#define TR_TESTS_CUDA_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include <cmocka.h>
}
#include <cublasLt.h>
#include <cuda_runtime.h>

#include "kernels/launch.cuh"
#include "tests/cuda/runtime/fake.h"

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

#define OK(call)         assert_int_equal(call, cudaSuccess)
#define FAILS(call, how) assert_int_equal(call, how)

/* fake_configure, after opening the gates that a failed test has left closed. */
void fresh(const char *words);

/* Holds a stream until it is opened: what is queued behind it has certainly not run. */
struct gate;
struct gate *gate_close(cudaStream_t s);
/* Waits until the stream has passed, frees the gate. */
void gate_open(struct gate *g);

cudaStream_t new_stream(void);
cudaEvent_t new_event(void);
void *device_bytes(size_t n);
void *pinned_bytes(size_t n);
/* One int of device memory, read without any stream. */
int peek(const void *device);

/* Runs fn in a child process with TR_FAKE_CUDA = words: the exit code, or minus the signal. What it
 * printed on stderr is in text (of 16384 bytes). */
extern char child_text[16384];
int in_child(void (*fn)(void), const char *words);

#endif
