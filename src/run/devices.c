/* SPDX-License-Identifier: Apache-2.0 */
#include "src/run/devices.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/device_module.h"
#include "src/base/err.h"
#include "src/base/sysmem.h"

int tr_devices_parse(const char *name, struct tr_device_choice *out)
{
    char *end = NULL;
    long n = 0;

    *out = (struct tr_device_choice){0};
    if (!strcmp(name, "cpu"))
        return 0;
    out->cuda = 1;
    if (!strcmp(name, "cuda"))
        return 0;
    if (!strncmp(name, "cuda:", 5) && name[5] >= '0' && name[5] <= '9')
        n = strtol(name + 5, &end, 10);
    if (!end || *end || n > 1023)
        return tr_error(-EINVAL, "--device %s: not one of cpu, cuda, cuda:N", name);
    out->ordinal = (int)n;
    return 0;
}

const char *tr_devices_default(void)
{
    const char *name = getenv("TAILRACE_DEVICE");
    uint64_t free_bytes, total;

    if (name && *name)
        return name;
    return tr_device_cuda_memory(0, &free_bytes, &total) == 0 ? "cuda" : "cpu";
}

int tr_devices_free_memory(const struct tr_device_choice *choice, uint64_t *bytes)
{
    uint64_t total;

    if (!choice->cuda)
        return tr_free_memory(bytes);
    return tr_device_cuda_memory(choice->ordinal, bytes, &total);
}

int tr_devices_open(struct tr_device **out, const struct tr_device_choice *choice,
                    const struct tr_device_params *p)
{
    struct tr_device_params with = *p;

    with.ordinal = choice->ordinal;
    return choice->cuda ? tr_device_open_cuda(out, &with) : tr_device_open_cpu(out, &with);
}
