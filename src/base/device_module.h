/* SPDX-License-Identifier: Apache-2.0
 *
 * What a device module (tailrace-cuda.so) and the program that opens it know of each other. The
 * module exports one symbol, TR_CUDA_MODULE_SYMBOL, a function that returns its table. It links
 * nothing of the program: errors and host memory go through the table it is given.
 */
#ifndef TR_BASE_DEVICE_MODULE_H
#define TR_BASE_DEVICE_MODULE_H

#include "src/base/device.h"

/* Goes up by one with any change to the structs here or in device.h that their sizes, compared
 * below, do not show: a field that changes its meaning, an op kind that changes its number. */
#define TR_CUDA_MODULE_ABI    2
#define TR_CUDA_MODULE_SYMBOL "tr_cuda_module"

struct tr_module_host {
    int (*error)(int code, const char *message); /* keeps the message, returns code */
    const char *(*message)(void);                /* the last one of this thread */
    void *(*alloc)(size_t bytes);                /* zeroed; NULL with a message */
    void (*free)(void *p);
    void *(*alloc_pages)(size_t bytes); /* 4096-aligned, counted as I/O buffers */
    void (*free_pages)(void *p, size_t bytes);
    void (*count_pages)(int64_t bytes); /* as I/O buffers that the module gets elsewhere */
};

struct tr_cuda_module {
    int abi;
    size_t op_bytes, ops_bytes, info_bytes, params_bytes; /* sizes of the structs of device.h */
    int (*open)(const struct tr_module_host *host, struct tr_device **out,
                const struct tr_device_params *p);
    int (*memory)(const struct tr_module_host *host, int ordinal, uint64_t *free, uint64_t *total);
    int (*workspace)(const struct tr_module_host *host, int ordinal, uint64_t *bytes);
};

typedef const struct tr_cuda_module *tr_cuda_module_fn(void);

#endif
