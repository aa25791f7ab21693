/* SPDX-License-Identifier: Apache-2.0
 *
 * Devices by name: which one a run computes on, how much memory it has to give, and opening it.
 */
#ifndef TR_SRC_RUN_DEVICES_H
#define TR_SRC_RUN_DEVICES_H

#include "src/base/device.h"

struct tr_device_choice {
    int cuda;    /* 0: the cpu device */
    int ordinal; /* cuda: which one */
};

/* "cpu", "cuda" (the first) or "cuda:N"; -EINVAL for another name. */
int tr_devices_parse(const char *name, struct tr_device_choice *out);

/* What to take where no name is given: TAILRACE_DEVICE, or the first GPU if one can be used, else
 * the cpu. */
const char *tr_devices_default(void);

/* Bytes that the device could give now. */
int tr_devices_free_memory(const struct tr_device_choice *choice, uint64_t *bytes);

int tr_devices_open(struct tr_device **out, const struct tr_device_choice *choice,
                    const struct tr_device_params *p);

#endif
