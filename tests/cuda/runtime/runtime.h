/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the fake runtime. Two rules keep ThreadSanitizer sharp: what a stream's thread and its
 * callers share is handed over by one-way edges only (release by the giver, acquire by the taker:
 * caller to stream through the queue, stream to waiter through a mark), and a stream's thread takes
 * no lock that others take. A lock would order things that CUDA does not order, and a missing event
 * would no longer be a data race.
 *
 * fake_state.lock guards the tables of live things; only callers' threads take it.
 */
#ifndef TR_TESTS_CUDA_RUNTIME_H
#define TR_TESTS_CUDA_RUNTIME_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#include "tests/cuda/runtime/fake.h"

#ifdef __cplusplus
extern "C" {
#else
#include <stdatomic.h>
#endif

#define FAKE_SHARED_DEFAULT (48 << 10)
#define FAKE_ALIGN          256 /* of every allocation, and no more than that */

struct fake_options {
    size_t memory, overhead, cublas, pinned;
    int devices, driver, sm, leaks, blas_shape, protect;
    unsigned delay;
    uint64_t fail_call; /* 0: by name, if there is one */
    uint64_t fail_nth;  /* of that name; 0: all */
    char fail_name[48], fail_how[16], count[512];
};

enum fake_kind {
    FAKE_STREAM,
    FAKE_EVENT,
    FAKE_DEVICE_MEMORY,
    FAKE_PINNED,
    FAKE_REGISTERED,
    FAKE_BLAS_HANDLE,
    FAKE_BLAS_DESC,
    FAKE_BLAS_LAYOUT,
    FAKE_BLAS_PREFERENCE,
    FAKE_KINDS
};

/* A live thing; for memory the bytes that the caller asked for. */
struct fake_object {
    enum fake_kind kind;
    void *p;
    size_t bytes;
    uint64_t call; /* the call that made it */
    struct fake_object *next;
};

struct fake_state {
    pthread_mutex_t lock;
    struct fake_options options;
    struct fake_object *objects[FAKE_KINDS]; /* newest first */
    size_t used, pinned;                     /* bytes charged */
    int leaked;                              /* something was left behind at a reset */
    int streams_made;
    uint64_t named; /* calls of the function that is to fail */
};

extern struct fake_state fake_state;

/* --- control.c: every function of the interface begins and ends here --- */
enum { FAKE_QUEUES = 1 }; /* the call queues work, so that its failure may come later */
/* Counts the call. An error to return: injected, sticky, or of a machine without a device. */
cudaError_t fake_enter(const char *name, int flags);
/* Keeps e for cudaGetLastError; returns e. */
cudaError_t fake_leave(cudaError_t e);
/* At a synchronisation: the error of work done since, which is sticky from here on. */
cudaError_t fake_surface(void);
/* From a stream's thread: this context is dead. */
void fake_fault(cudaError_t e);
/* Whether a fault has come; what is queued is then dropped. */
int fake_dead(void);
/* The fault that the present call is to queue, once; cudaSuccess if none. */
cudaError_t fake_take_planned_fault(void);
void fake_plan_fault(cudaError_t e);
void fake_set_in_callback(int on);
int fake_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* --- objects.c; the lock is taken inside but where it says locked --- */
void fake_object_add(enum fake_kind kind, void *p, size_t bytes);
struct fake_object *fake_object_find_locked(enum fake_kind kind, const void *p);
int fake_object_live(enum fake_kind kind, const void *p);
/* Takes it off the table: 1, or 0 where it was not there. */
int fake_object_remove(enum fake_kind kind, const void *p, size_t *bytes);
void fake_free_all(void);

/* --- device.c --- */
/* The most shared memory that a block of the GPU may have, by the CUDA C++ programming guide. */
int fake_shared_optin(void);

/* --- memory.c --- */
enum fake_place { FAKE_AT_DEVICE, FAKE_AT_PINNED, FAKE_AT_PAGEABLE, FAKE_AT_NOWHERE };
/* Where n bytes lie; NOWHERE: partly in an allocation, or against one. */
enum fake_place fake_place_of(const void *p, size_t n);
/* Whether a kernel could use p: device memory or pinned memory, its end included. */
int fake_device_sees(const void *p);
/* Around every use of device memory: outside it is inaccessible with protect=1. */
void fake_memory_open(void);
void fake_memory_close(void);
/* Charges device memory; 0 or cudaErrorMemoryAllocation. */
cudaError_t fake_charge(size_t bytes);
void fake_refund(size_t bytes);
cudaError_t fake_free(void *p);
cudaError_t fake_free_host(void *p);

/* --- stream.c --- */
/* Whether s is a stream that work can be queued on; prints why not. */
cudaError_t fake_stream_check(cudaStream_t s);
/* Queues work of the present call: run(arg), not called once the context is dead, then
 * destroy(arg), called always. */
void fake_push_work(cudaStream_t s, void (*run)(void *), void (*destroy)(void *), void *arg);

#ifndef __cplusplus
struct fake_command {
    void (*run)(struct fake_command *c);     /* not called once the context is dead */
    void (*destroy)(struct fake_command *c); /* always; frees what the command owns but itself */
    _Atomic(struct fake_command *) next;
    cudaError_t fault; /* instead of run */
    int last;          /* the stream ends here */
};

/* A point in a stream's work. done is waited on as a futex. */
struct fake_mark {
    atomic_int refs;
    atomic_uint done;
    int64_t time_ns;
};

/* A zeroed command (size >= sizeof(struct fake_command)); aborts without memory. */
void *fake_command_new(size_t size);
/* Returns how many commands the stream has been given, this one included. */
unsigned fake_push(cudaStream_t s, struct fake_command *c);
/* Queues a mark and returns it with one reference, the caller's. */
struct fake_mark *fake_mark_push(cudaStream_t s);
void fake_mark_ref(struct fake_mark *m);
void fake_mark_unref(struct fake_mark *m);
void fake_mark_wait(struct fake_mark *m);
/* All that was queued on s is done. */
void fake_stream_drain(cudaStream_t s);
void fake_drain_all(void);
void fake_stream_destroy(cudaStream_t s);
/* Joins the threads of destroyed streams. */
void fake_streams_join(void);
void fake_event_destroy(cudaEvent_t e);

#endif

/* --- launch.cc --- */
void fake_functions_forget(void);

#ifdef __cplusplus
}
#endif
#endif
