/* SPDX-License-Identifier: Apache-2.0
 *
 * The one symbol that the module exports, and the one place where a device is made.
 */
#include "kernels/device.h"

static struct tr_cuda_device *make_device(const struct tr_module_host *host)
{
    struct tr_cuda_device *d;

    tr_cuda_host = host;
    d = (struct tr_cuda_device *)host->alloc(sizeof(*d));
    if (!d)
        return NULL;
    d->base.ops = &tr_cuda_ops;
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->run_lock, NULL);
    for (int s = 0; s < TR_STREAMS; s++)
        pthread_mutex_init(&d->callers[s].lock, NULL);
    return d;
}

static int open_device(const struct tr_module_host *host, struct tr_device **out,
                       const struct tr_device_params *p)
{
    struct tr_cuda_device *d = make_device(host);
    int error = d ? tr_cuda_open(d, p) : -ENOMEM;

    if (error && d)
        tr_cuda_close(&d->base);
    if (!error)
        *out = &d->base;
    return error;
}

static int workspace(const struct tr_module_host *host, int ordinal, uint64_t *bytes)
{
    struct tr_cuda_device *d = make_device(host);
    int error = d ? tr_cuda_open_all_but_memory(d, ordinal) : -ENOMEM;

    if (!error)
        error = tr_cuda_least(d, bytes);
    if (d)
        tr_cuda_close(&d->base);
    return error;
}

static int memory(const struct tr_module_host *host, int ordinal, uint64_t *free, uint64_t *total)
{
    struct tr_cuda_memory m;
    int error;

    tr_cuda_host = host;
    error = tr_cuda_check_driver(ordinal);
    if (!error)
        error = tr_cuda_memory(ordinal, &m);
    if (error)
        return error;
    *free = m.free;
    *total = m.total;
    return 0;
}

extern "C" __attribute__((visibility("default"))) const struct tr_cuda_module *tr_cuda_module(void);

extern "C" const struct tr_cuda_module *tr_cuda_module(void)
{
    static const struct tr_cuda_module module = {TR_CUDA_MODULE_ABI,
                                                 sizeof(struct tr_op),
                                                 sizeof(struct tr_device_ops),
                                                 sizeof(struct tr_device_info),
                                                 sizeof(struct tr_device_params),
                                                 open_device,
                                                 memory,
                                                 workspace};

    return &module;
}
