/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of one running block, and who may touch it:
 *
 *   grid.cc      blocks in order; owns the engine of a thread of the system
 *   block.cc     which CUDA thread runs next; fibers; __syncthreads
 *   warp.cc      collectives: lanes meet, the last one computes for all; shuffles, votes
 *   fragment.cc  ldmatrix and mma, collectives of a whole warp
 *   shared.cc    shared memory, its poison and guards
 *   copy.cc      cp.async
 *   report.cc    what a failure says
 *
 * A CUDA thread:
 *              block_run           meets a barrier or a collective
 *     UNSTARTED ──────▶ RUNNING ────────────────────────────────▶ WAITING
 *                          │ ▲  picked                  last one came │
 *                returns   │ └─────── WAITING and ready ◀─────────────┘
 *                          ▼
 *                        DONE
 *
 * A fiber whose thread returns runs the next unstarted thread itself, so a kernel without barriers
 * needs one fiber. Under ThreadSanitizer every CUDA thread has a fiber of its own, in two sets
 * that blocks take in turn: neighbouring blocks must not look like one thread.
 */
#ifndef TR_TESTS_CUDA_ENGINE_H
#define TR_TESTS_CUDA_ENGINE_H

#include <tr_shim_builtins.h>

#include "tests/cuda/shim/fiber.h"
#include "tests/cuda/shim/order.h"
#include "tests/cuda/shim/sanitizer.h"
#include "tests/cuda/shim/shim.h"

enum {
    SHIM_LANES = 32,
    SHIM_WARPS = 32,
    SHIM_THREADS = SHIM_LANES * SHIM_WARPS,
    SHIM_SHARED_NAMES = 32,
    SHIM_STATIC_BYTES = 48 << 10,  // nvcc refuses more
    SHIM_SHARED_BYTES = 227 << 10, // for a block, of the widest GPU; others' limits: the runtime's
    SHIM_ARENA_BYTES = 256 << 10,  // with guards
};

/* What speaks of failures has long texts, which would spread the stacks of those who never fail. */
#define SHIM_COLD __attribute__((cold, noinline))

struct shim_site {
    const char *what, *file;
    int line;
};

struct shim_copy {
    void *shared;
    const void *global;
    bool valid;
    unsigned group;
    struct shim_site site;
};

/* Of those that are unstarted or wait, shim_warp.ready has who can go on. */
enum shim_state { SHIM_UNSTARTED, SHIM_RUNNING, SHIM_WAITING, SHIM_DONE };

struct shim_thread {
    struct shim_fiber *fiber; // while it waits or is ready
    uint3 index;
    int number;
    enum shim_state state;
    unsigned mask;                // of the collective it waits in; 0 at a barrier
    const struct shim_site *site; // where it waits: on its own stack
    struct shim_copy *copies;
    int n_copies, room_copies;
    unsigned group; // the cp.async group that is open
};

/* Lanes that wait for each other at one place. */
struct shim_meeting {
    struct shim_site site;
    unsigned mask, arrived;
    int phase;
};

struct shim_warp {
    unsigned present, ready;
    unsigned open; // bit i: meetings[i] is waiting
    struct shim_meeting meetings[SHIM_LANES];
    void *slots[SHIM_LANES]; // what each lane brought
};

struct shim_fiber {
    struct fiber fiber;
    struct shim_thread *thread; // whose turn it is when switched to
    struct shim_fiber *next;    // among the idle ones
};

struct shim_shared {
    const void *key;
    const char *name;
    char *base;
    size_t bytes;
};

struct shim_barrier {
    struct shim_site site;
    enum tr_shim_reduce reduce;
    int arrived, first, phase;
    int sum, result[2];
};

/* Addresses on which ThreadSanitizer sees the block's threads meet, by phase: who goes on early
 * and comes to the next barrier must not be seen by who goes on late. */
struct shim_sync {
    char barrier[2], meetings[SHIM_WARPS][SHIM_LANES][2];
};

struct shim_grid_sync {
    char start, end, fence;
};

struct shim_engine {
    const struct tr_shim_grid *g;
    void (*body)(void *);
    void *arg;
    char *error;
    size_t room;
    bool running, failed;

    struct shim_order order;
    uint64_t n_blocks;
    int n_threads, n_done;
    unsigned ready_warps;
    struct shim_thread *current;
    struct shim_warp *warp; // of the current thread
    unsigned lane;          // and its place there
    struct shim_barrier barrier;

    struct shim_engine *next; // among those without a thread

    struct fiber main;
    struct shim_fiber *fibers[2 * SHIM_THREADS], *idle;
    int n_fibers, set;

    char *arena;
    size_t arena_used, static_bytes, shared_bytes;
    int n_shared;
    struct shim_shared shared[SHIM_SHARED_NAMES];

    struct shim_sync *sync; // behind the arena
    struct shim_grid_sync *grid_sync, no_grid_sync;
    struct shim_warp warps[SHIM_WARPS];
    struct shim_thread threads[SHIM_THREADS];
};

extern __thread struct shim_engine *shim_now __attribute__((tls_model("initial-exec")));

/* Lets the others run until this thread is ready again: it has set its state. */
void shim_block_yield(struct shim_engine *e);
void shim_block_wake(struct shim_engine *e, struct shim_warp *w, unsigned lanes);
/* Once a grid: what all its blocks have in common; under ThreadSanitizer its fibers too, since a
 * fiber knows all that its maker did. */
void shim_block_prepare(struct shim_engine *e);
/* Runs one block from the thread's own stack, on one of two sets of fibers; e->failed says how it
 * went. */
void shim_block_run(struct shim_engine *e, int set);
void shim_block_free(struct shim_engine *e);

/* Waits until every lane of `mask` has come to the same site, with `slot` for finish(), which the
 * last one calls. Memory is ordered only if `orders` (__syncwarp). */
struct shim_meet {
    struct shim_site site;
    unsigned mask;
    bool orders;
    void (*finish)(struct shim_engine *e, struct shim_warp *w, unsigned mask);
};
void shim_warp_meet(const struct shim_meet *m, void *slot);

void shim_shared_begin(struct shim_engine *e);
/* Looks at the guards; says what was overrun. */
void shim_shared_end(struct shim_engine *e);
void shim_shared_free(struct shim_engine *e);
bool shim_shared_holds(const struct shim_engine *e, const void *p, size_t bytes);

/* A thread has returned: nothing may be under way. */
void shim_copy_end(struct shim_engine *e, struct shim_thread *t);
void shim_copy_free(struct shim_engine *e);

/* Notes the first failure, after the block's index. Called by a CUDA thread it does not return. */
void shim_fail(struct shim_engine *e, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Nobody can go on: says who waits for whom. */
void shim_report_stuck(struct shim_engine *e);
const char *shim_report_site(const struct shim_site *s, char *text, size_t room);

/* memset and memcpy of the C library are seen by the sanitizers; these are not. */
static inline void shim_fill(void *p, int byte, size_t n)
{
    volatile unsigned char *to = (volatile unsigned char *)p;
#ifdef __x86_64__
    asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
#else
    while (n--)
        *to++ = (unsigned char)byte;
#endif
}

#endif
