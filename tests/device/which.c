/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/device/which.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"

#define GRANULE   ((uint64_t)2 << 20) /* what a GPU hands out at a time */
#define MOST_MORE ((uint64_t)2 << 30)

static const char *name(void)
{
    const char *s = getenv("TR_TEST_DEVICE");

    return s && *s ? s : "cpu";
}

int test_device_is_cpu(void)
{
    return strcmp(name(), "cpu") == 0;
}

const struct test_fake *test_device_fake(void)
{
    const char *path = getenv("TAILRACE_CUDA_MODULE");
    const struct test_fake *(*get)(void) = NULL;
    void *module;

    if (test_device_is_cpu() || !path || !(module = dlopen(path, RTLD_NOW | RTLD_LOCAL)))
        return NULL;
    *(void **)&get = dlsym(module, "tr_test_fake");
    return get ? get() : NULL;
}

int test_device_delays(void)
{
    return test_device_is_cpu() || test_device_fake();
}

static void delay_fake(unsigned seed)
{
    const struct test_fake *fake = test_device_fake();
    const char *words = getenv("TR_FAKE_CUDA");
    char all[512];

    if (!fake)
        return;
    snprintf(all, sizeof(all), "%s,delay=%u", words ? words : "", seed);
    fake->configure(all);
}

/* What the device takes for itself may have grown since it was asked: what libraries load at their
 * first use, what a checker of memory keeps on the GPU, other programs. */
int test_device_open_cuda(struct tr_device **out, struct tr_device_params *p, uint64_t arena_bytes)
{
    struct tr_device_info info;
    uint64_t workspace;
    int error = tr_device_cuda_workspace(p->ordinal, &workspace);

    for (uint64_t more = 2 * GRANULE; !error && more <= MOST_MORE; more *= 8) {
        p->memory_bytes = workspace + arena_bytes + more;
        error = tr_device_open_cuda(out, p);
        if (error == -EINVAL) { /* too small for any arena */
            error = 0;
            continue;
        }
        if (error)
            return error;
        (*out)->ops->info(*out, &info);
        if (info.arena_bytes >= arena_bytes)
            return 0;
        (*out)->ops->close(*out);
        *out = NULL;
    }
    return error ? error : tr_error(-ENOMEM, "the device takes more of every budget");
}

int test_device_open(struct tr_device **out, struct tr_device_params *p, uint64_t arena_bytes)
{
    if (test_device_is_cpu()) {
        p->memory_bytes = tr_device_cpu_workspace(p) + arena_bytes;
        return tr_device_open_cpu(out, p);
    }
    if (strncmp(name(), "cuda", 4) != 0)
        return tr_error(-EINVAL, "TR_TEST_DEVICE: no device %s", name());
    p->ordinal = name()[4] == ':' ? atoi(name() + 5) : 0;
    delay_fake(p->delay_seed);
    return test_device_open_cuda(out, p, arena_bytes);
}
