/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cuda/shim/fiber.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/cuda/shim/sanitizer.h"

enum { GUARD_BYTES = 4096 };

#if defined(__x86_64__) && !defined(TR_SHIM_UCONTEXT)

/* Saves what the System V ABI lets a callee keep, swaps the stacks, restores. The control words of
 * SSE and x87 stay: kernels do not change them. */
asm(R"(
    .text
    .p2align 4
    .type tr_shim_switch, @function
tr_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size tr_shim_switch, . - tr_shim_switch
    .type tr_shim_start, @function
tr_shim_start:
    movq %rbx, %rdi
    callq *%r12
    ud2
    .size tr_shim_start, . - tr_shim_start
)");

extern "C" void tr_shim_switch(void **save, void *to);
extern "C" void tr_shim_start(void);

static int prepare(struct fiber *f, int index)
{
    uintptr_t top = (uintptr_t)f->stack + f->stack_bytes - 64 - (uintptr_t)index % 16 * 320;
    void **sp = (void **)(top & ~(uintptr_t)15);

    /* As tr_shim_switch leaves a stack: r15 r14 r13 r12 rbx rbp, then where to go on. */
    sp -= 7;
    memset(sp, 0, 7 * sizeof *sp);
    sp[3] = (void *)f->entry;
    sp[4] = f;
    sp[6] = (void *)tr_shim_start;
    f->sp = sp;
    return 0;
}

static void swap(struct fiber *from, struct fiber *to)
{
    tr_shim_switch(&from->sp, to->sp);
}

static void forget(struct fiber *f)
{
    (void)f;
}

#else
#include <ucontext.h>

static void start(unsigned high, unsigned low)
{
    struct fiber *f = (struct fiber *)(uintptr_t)((uint64_t)high << 32 | low);
    f->entry(f);
}

static int prepare(struct fiber *f, int index)
{
    ucontext_t *u = (ucontext_t *)calloc(1, sizeof *u);
    uint64_t self = (uintptr_t)f;

    (void)index;
    if (!u || getcontext(u))
        return free(u), -ENOMEM;
    u->uc_stack.ss_sp = f->stack;
    u->uc_stack.ss_size = f->stack_bytes;
    makecontext(u, (void (*)())start, 2, (unsigned)(self >> 32), (unsigned)self);
    f->sp = u;
    return 0;
}

static void swap(struct fiber *from, struct fiber *to)
{
    ucontext_t here;

    if (!from->map) // the thread's own stack: its context lives here while others run
        from->sp = &here;
    swapcontext((ucontext_t *)from->sp, (ucontext_t *)to->sp);
}

static void forget(struct fiber *f)
{
    free(f->sp);
}
#endif

void fiber_adopt(struct fiber *f)
{
    memset(f, 0, sizeof *f);
#if TR_SHIM_TSAN
    f->tsan = __tsan_get_current_fiber();
#endif
}

int fiber_create(struct fiber *f, void (*entry)(struct fiber *), void *owner, struct fiber *main,
                 int index)
{
    memset(f, 0, sizeof *f);
    f->entry = entry;
    f->owner = owner;
    f->main = main;
    f->map_bytes = SHIM_STACK_BYTES + GUARD_BYTES;
    void *map = mmap(NULL, f->map_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return -ENOMEM;
    f->map = (char *)map;
    f->stack = f->map + GUARD_BYTES;
    f->stack_bytes = SHIM_STACK_BYTES;
    if (mprotect(map, GUARD_BYTES, PROT_NONE) || prepare(f, index))
        return fiber_destroy(f), -ENOMEM;
#if TR_SHIM_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    return 0;
}

void fiber_destroy(struct fiber *f)
{
    if (!f->map)
        return;
#if TR_SHIM_TSAN
    if (f->tsan)
        __tsan_destroy_fiber(f->tsan);
#endif
    SHIM_UNPOISON(f->stack, f->stack_bytes);
    forget(f);
    munmap(f->map, f->map_bytes);
    f->map = NULL;
}

/* The first of a thread's fibers that goes on, be it new or one that has waited, comes from the
 * thread's own stack, whose place only ASan knows. */
void fiber_entered(struct fiber *self)
{
    (void)self;
#if TR_SHIM_ASAN
    const void *bottom;
    size_t bytes;

    __sanitizer_finish_switch_fiber(self->asan, &bottom, &bytes);
    if (self->main && !self->main->stack) {
        self->main->stack = (char *)bottom;
        self->main->stack_bytes = bytes;
    }
#endif
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
#if TR_SHIM_ASAN
    __sanitizer_start_switch_fiber(&from->asan, to->stack, to->stack_bytes);
#endif
#if TR_SHIM_TSAN
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swap(from, to);
    fiber_entered(from);
}
