/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies within the device as the driver makes them, beside the device's table, which has none. The
 * driver is the one that the device has loaded, with its context current on this thread.
 */
#include <dlfcn.h>
#include <stdint.h>

#include "tests/cuda/bench/bench.h"

#define COPIES 8 /* of a round, so that its end costs nothing */

/* The driver's own functions and types (cuda.h), as far as they are used. */
struct driver {
    int (*copy)(uint64_t to, uint64_t from, size_t bytes, void *stream);
    int (*wait)(void);
    size_t bytes;
    int failed;
};

static void copy(const struct bench *b, void *arg)
{
    struct driver *v = arg;
    uint64_t arena = (uint64_t)(uintptr_t)b->arena;

    for (int i = 0; i < COPIES && !v->failed; i++)
        v->failed = v->copy(arena + v->bytes, arena, v->bytes, NULL);
    v->failed |= v->wait();
}

double bench_driver_copy(const struct bench *b, size_t bytes)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    struct driver v = {.bytes = bytes};
    double seconds = 0;

    if (!library)
        return 0;
    *(void **)&v.copy = dlsym(library, "cuMemcpyDtoDAsync_v2");
    *(void **)&v.wait = dlsym(library, "cuCtxSynchronize");
    if (v.copy && v.wait)
        seconds = bench_time(b, copy, &v);
    dlclose(library);
    return seconds > 0 && !v.failed ? 2.0 * COPIES * (double)bytes / seconds * 1e-9 : 0;
}
