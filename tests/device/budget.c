/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/device/budget.h"

#include <stdio.h>
#include <stdlib.h>

#include "src/base/err.h"
#include "src/run/devices.h"

/* Asked once: it opens the device. What is loaded onto it later is little against `bytes`. */
uint64_t test_budget(const char *device, uint64_t bytes)
{
    static uint64_t own;
    struct tr_device_choice choice;

    if (tr_devices_parse(device ? device : tr_devices_default(), &choice) == 0 && choice.cuda) {
        if (!own && tr_device_cuda_workspace(choice.ordinal, &own) < 0) {
            fprintf(stderr, "%s\n", tr_error_message());
            exit(1);
        }
        return bytes + own;
    }
    return bytes;
}
