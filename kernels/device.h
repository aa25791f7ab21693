/* SPDX-License-Identifier: Apache-2.0
 *
 * The cuda device as its own files see it: kernels/open.cu opens one, kernels/device.cu is its
 * table. Everything of the device memory is one allocation:
 *
 *     | arena | scratch | cuBLASLt's workspace |
 */
#ifndef TR_KERNELS_DEVICE_H
#define TR_KERNELS_DEVICE_H

#include <pthread.h>

#include "kernels/cuda.h"
#include "src/base/device_module.h"

struct tr_event {
    cudaEvent_t event;
};

/* Where the functions of a stream's calls run: a stream of its own that follows it. */
struct tr_cuda_caller {
    cudaStream_t stream;
    cudaEvent_t due, end; /* of the stream that is followed; of this one, to be waited for */
    pthread_mutex_t lock; /* a call is three commands that belong together */
};

/* kernels/pace.cu: where the compute stream was one and two rounds of launches ago. */
#define TR_CUDA_MARKS 2
struct tr_cuda_pace {
    cudaEvent_t mark[TR_CUDA_MARKS];
    unsigned launches, next; /* since the last mark; which of them that is */
};
void tr_cuda_pace_close(struct tr_cuda_pace *p);
/* An op has been queued: waits where too many are. */
int tr_cuda_pace_keep(struct tr_cuda_pace *p, cudaStream_t stream, const struct tr_op *op);

/* kernels/times.cu: what takes how long, where somebody asks; else NULL, and nothing is done. */
struct tr_cuda_times;
int tr_cuda_times_open(struct tr_cuda_times **out);
void tr_cuda_times_close(struct tr_cuda_times *t);
/* Around an op, one at a time. */
void tr_cuda_times_begin(struct tr_cuda_times *t, const struct tr_op *op, cudaStream_t stream);
void tr_cuda_times_end(struct tr_cuda_times *t, cudaStream_t stream);
size_t tr_cuda_times_describe(struct tr_cuda_times *t, char *text, size_t room);

/* Host memory of the driver's own, where it does not pin ours. */
struct tr_cuda_pinned {
    struct tr_cuda_pinned *next;
    void *base; /* what the driver gave */
    char *p;    /* what the program has of it: 4096-aligned */
};

struct tr_cuda_kept {
    int code; /* 0: none */
    char message[512];
};

struct tr_cuda_device {
    struct tr_device base;
    struct tr_cuda cuda;
    int ordinal, multiprocessors;
    cudaStream_t streams[TR_STREAMS];
    struct tr_cuda_caller callers[TR_STREAMS];
    struct tr_cuda_pace pace; /* under run_lock, as the next */
    struct tr_cuda_times *times;
    char *memory, *arena;
    uint64_t memory_bytes, arena_bytes, workspace_bytes;
    pthread_mutex_t run_lock; /* one op at a time is queued: choices and scratch have one owner */
    pthread_mutex_t lock;     /* of all below */
    struct tr_cuda_kept op;   /* the first error of an op, until a sync returns it */
    struct tr_cuda_kept lost; /* an error of the device itself, for good */
    struct tr_cuda_pinned *pinned;
    char name[96], bits[96], remark[192];
};

/* What the program gave the module; set before anything else is called. */
extern const struct tr_module_host *tr_cuda_host;
extern const struct tr_device_ops tr_cuda_ops;

/* Makes the device current for the calling thread. */
int tr_cuda_use(int ordinal);
/* Closes a device, also one that was opened halfway. */
void tr_cuda_close(struct tr_device *device);
/* Opens all but the table; the second leaves out the arena, for the least budget that would do. */
int tr_cuda_open(struct tr_cuda_device *d, const struct tr_device_params *p);
int tr_cuda_open_all_but_memory(struct tr_cuda_device *d, int ordinal);
int tr_cuda_least(const struct tr_cuda_device *d, uint64_t *bytes);

/* kernels/budget.cu: what the driver says of the memory of a GPU. */
struct tr_cuda_memory {
    uint64_t free, total;
    uint64_t ours; /* in use by this process, or by anybody where the driver cannot tell, but for
                    * what its open devices have taken */
};
/* To be called once before a context is made; later calls keep the first figure. */
void tr_cuda_memory_before(int ordinal);
int tr_cuda_memory(int ordinal, struct tr_cuda_memory *out);
/* A device's one allocation comes or, negative, goes. */
void tr_cuda_memory_take(int ordinal, int64_t bytes);

/* Driver and runtime fit, and there is a GPU of that number. */
int tr_cuda_check_driver(int ordinal);

#endif
