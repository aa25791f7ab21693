/* SPDX-License-Identifier: Apache-2.0
 *
 * Stacks and the switch between them: a few instructions on x86-64, ucontext elsewhere, and the
 * sanitizers told. Under ThreadSanitizer each fiber is one of its fibers, and a switch orders
 * nothing.
 */
#ifndef TR_TESTS_CUDA_FIBER_H
#define TR_TESTS_CUDA_FIBER_H

#include <stddef.h>

struct fiber {
    void *sp; // where it was left: the stack pointer (x86-64) or a ucontext_t
    char *map;
    size_t map_bytes;
    char *stack; // the lowest usable byte, behind the guard page
    size_t stack_bytes;
    void *asan, *tsan;
    void (*entry)(struct fiber *self);
    void *owner; // for the entry
    struct fiber *main;
};

/* The calling thread's own stack. */
void fiber_adopt(struct fiber *f);
/* A fiber that calls entry(f) at the first switch to it; entry never returns. `index` spreads the
 * stacks over the sets of the caches. `main` is what has been adopted whenever one of its fibers is
 * switched to: from its stack. 0 or -ENOMEM. */
int fiber_create(struct fiber *f, void (*entry)(struct fiber *), void *owner, struct fiber *main,
                 int index);
void fiber_destroy(struct fiber *f);
void fiber_switch(struct fiber *from, struct fiber *to);
/* First thing on a fiber that was just entered. */
void fiber_entered(struct fiber *self);

#endif
