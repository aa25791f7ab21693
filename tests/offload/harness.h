/* SPDX-License-Identifier: Apache-2.0
 *
 * What the offload tests share: folders that clean themselves up, layouts, deterministic bytes, a
 * generator of random numbers, and a device with nothing but streams.
 */
#ifndef TESTS_OFFLOAD_HARNESS_H
#define TESTS_OFFLOAD_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "offload/store_private.h"
#include "src/base/device.h"
#include "src/base/err.h"

/* Fails with the library's own message. */
#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        int ok_result_ = (expr);                                                                   \
        if (ok_result_ < 0)                                                                        \
            fail_msg("%s = %d: %s", #expr, ok_result_, tr_error_message());                        \
    } while (0)

/* An error of this kind, whose message has this word in it. */
void expect_error(int r, int code, const char *word);

uint64_t rng_next(uint64_t *state);
uint32_t rng_below(uint64_t *state, uint32_t n);

/* A folder under TMPDIR (or /tmp) that does not exist yet; removed, with its contents, at exit. */
char *test_folder(void);
/* As many of them, as the list that a store takes. */
char *test_folders(uint32_t n);
void flip_byte(const char *folder, const char *name, uint64_t offset);

/* What test_layout builds: spans with some pieces each, of sizes that differ. */
struct shape {
    uint32_t n_spans;
    uint32_t n_pools;    /* span i lies in pool i % n_pools */
    uint32_t max_pieces; /* of a span */
    uint64_t max_bytes;  /* of a piece */
    uint64_t seed;
};
void test_layout(struct tr_layout *l, const struct shape *shape);
uint64_t span_max_bytes(const struct tr_layout *l, uint32_t pool);

/* Fills a span's pieces with bytes that depend on (span, version); the gaps get other bytes. */
void fill_span(char *bytes, const struct tr_layout *l, uint32_t span, uint64_t version);
void fill_bytes(void *p, size_t n, uint64_t seed);

/* Creates a store whose spans hold version 0 and commits it with payload "start". Several folders
 * share it as if they were of different speeds. */
struct tr_store *test_store(const char *folder, const struct tr_layout *l, int generations,
                            const struct tr_io_hook *hook);

/* Defects of a device, and of what an engine makes of it, on purpose. */
enum device_mutant {
    DEVICE_SOUND,
    DEVICE_EAGER,     /* the callback of a visit does not wait for its compute */
    DEVICE_LATE_IN,   /* callbacks do not wait for copies in, only compute does: as if a chunk were
                         free before its copy is done */
    DEVICE_EAGER_OUT, /* callbacks do not wait for copies out: as if the write began before */
    DEVICE_STALE,     /* copies out are forgotten when the same memory is copied in again: as if a
                         write-back did not reach the home */
    DEVICE_DEAF       /* a copy fails, and error() does not tell it */
};

/* What may go wrong with a device: the nth of its copies in or out, or callbacks. */
enum device_fault {
    FAULT_NONE,
    FAULT_COPY_IN,  /* refused at once */
    FAULT_COPY_OUT, /* refused at once */
    FAULT_CALL,     /* refused at once */
    FAULT_ASYNC_IN, /* not done; error() tells it */
    FAULT_ASYNC_OUT,
    FAULT_LOST /* this callback and all later ones do not come before the device is closed, sync
                  returns the error at once */
};

/* A device whose streams are threads; with a seed each command is delayed at random. opaque: its
 * memory lies elsewhere than its addresses say, where there is none: any access but a copy ends in
 * a fault. */
struct test_device_params {
    uint64_t arena_bytes;
    uint64_t delay_seed;
    uint32_t max_delay_us;
    int opaque;
    enum device_mutant mutant;
    enum device_fault fault;
    uint32_t fault_after;
};
struct tr_device *test_device(const struct test_device_params *p);
/* The memory behind an address of the device, for what stands in for its compute. */
char *test_device_memory(struct tr_device *d, void *at);
void test_device_fault_after(struct tr_device *d, uint64_t n); /* before its first command */
uint64_t test_device_copies(struct tr_device *d);
uint64_t test_device_host_bytes(struct tr_device *d); /* by host_alloc, now */
/* Queues fn(arg) as a piece of compute. */
void test_device_run(struct tr_device *d, void (*fn)(void *arg), void *arg);

#endif
