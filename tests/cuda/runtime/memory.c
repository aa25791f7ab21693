/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory and pinned host memory: mappings of their own between inaccessible pages, full of
 * 0xff (NaN in f32, bf16 and f16). An allocation ends where its last page ends (but for alignment),
 * and the bytes before it are looked at when it is freed. cudaFree, cudaFreeHost and
 * cudaHostUnregister wait for all streams, as CUDA does.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/cuda/runtime/runtime.h"

#define POISON      0xff
#define TABLE_SHARE 512 /* an entry of 8 bytes for every 4 KiB */

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t charge_of(size_t bytes)
{
    return bytes >= (size_t)1 << 20 ? round_up(bytes, (size_t)2 << 20) : round_up(bytes, 512);
}

/* What is free of device memory, with the lock held: the page tables of pinned memory lie there. */
static size_t left(void)
{
    const struct fake_options *o = &fake_state.options;
    size_t taken = o->overhead + fake_state.used + fake_state.pinned / TABLE_SHARE;

    return taken < o->memory ? o->memory - taken : 0;
}

cudaError_t fake_charge(size_t bytes)
{
    cudaError_t e = cudaErrorMemoryAllocation;

    pthread_mutex_lock(&fake_state.lock);
    if (bytes <= left()) {
        fake_state.used += bytes;
        e = cudaSuccess;
    }
    pthread_mutex_unlock(&fake_state.lock);
    return e;
}

void fake_refund(size_t bytes)
{
    pthread_mutex_lock(&fake_state.lock);
    fake_state.used -= bytes;
    pthread_mutex_unlock(&fake_state.lock);
}

static cudaError_t charge_pinned(size_t bytes)
{
    cudaError_t e = cudaErrorMemoryAllocation;

    pthread_mutex_lock(&fake_state.lock);
    if (bytes <= fake_state.options.pinned &&
        fake_state.pinned <= fake_state.options.pinned - bytes) {
        fake_state.pinned += bytes;
        e = cudaSuccess;
    }
    pthread_mutex_unlock(&fake_state.lock);
    return e;
}

static void refund_pinned(size_t bytes)
{
    pthread_mutex_lock(&fake_state.lock);
    fake_state.pinned -= bytes;
    pthread_mutex_unlock(&fake_state.lock);
}

enum { STEP = 2 << 20 };
static int poison = -1; /* a file of STEP bytes of it */

static void make_poison(void)
{
    static char page[4096];
    int fd = memfd_create("poison", MFD_CLOEXEC);
    int ok = fd >= 0;

    memset(page, POISON, sizeof(page));
    for (size_t i = 0; ok && i < STEP; i += sizeof(page))
        ok = pwrite(fd, page, sizeof(page), (off_t)i) == (ssize_t)sizeof(page);
    if (ok)
        poison = fd;
}

/* Pages that share their memory until they are written: a large arena costs what is used of it. */
static int map_poison(char *at, size_t bytes)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int ok;

    pthread_once(&once, make_poison);
    ok = poison >= 0;
    for (size_t i = 0; ok && i < bytes; i += STEP)
        ok = mmap(at + i, bytes - i < STEP ? bytes - i : STEP, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_FIXED, poison, 0) != MAP_FAILED;
    return ok;
}

/* The mapping of an allocation, guards included. */
static char *mapping_of(char *p, size_t bytes, size_t *length)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = round_up(bytes, page);

    *length = body + 2 * page;
    return p + round_up(bytes, FAKE_ALIGN) - body - page;
}

static int users; /* of device memory, at present; under fake_state.lock, as the protection is */

static void protect(const struct fake_object *o, int access)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), length;
    char *base = mapping_of(o->p, o->bytes, &length);

    if (mprotect(base + page, length - 2 * page, access))
        abort();
}

static void protect_all(int access)
{
    for (struct fake_object *o = fake_state.objects[FAKE_DEVICE_MEMORY]; o; o = o->next)
        protect(o, access);
}

void fake_memory_open(void)
{
    if (!fake_state.options.protect)
        return;
    pthread_mutex_lock(&fake_state.lock);
    if (users++ == 0)
        protect_all(PROT_READ | PROT_WRITE);
    pthread_mutex_unlock(&fake_state.lock);
}

void fake_memory_close(void)
{
    if (!fake_state.options.protect)
        return;
    pthread_mutex_lock(&fake_state.lock);
    if (--users == 0)
        protect_all(PROT_NONE);
    pthread_mutex_unlock(&fake_state.lock);
}

static void *map(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = round_up(bytes, page);
    char *base;

    if (bytes > SIZE_MAX - 3 * page)
        return NULL;
    base =
        mmap(NULL, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (!map_poison(base + page, body)) {
        munmap(base, body + 2 * page);
        return NULL;
    }
    return base + page + body - round_up(bytes, FAKE_ALIGN);
}

static void unmap(char *p, size_t bytes, const char *what)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), length;
    char *base = mapping_of(p, bytes, &length);
    const unsigned char *end = (unsigned char *)base + length - page;
    int touched = 0;

    for (const unsigned char *c = (unsigned char *)base + page; c < (unsigned char *)p; c++)
        touched |= *c != POISON;
    for (const unsigned char *c = (unsigned char *)p + bytes; c < end; c++)
        touched |= *c != POISON;
    if (touched) {
        fake_say("something wrote just outside %s of %zu bytes", what, bytes);
        abort();
    }
    munmap(base, length);
}

static cudaError_t allocate(void **out, size_t bytes, enum fake_kind kind)
{
    int device = kind == FAKE_DEVICE_MEMORY;
    size_t charge = device ? charge_of(bytes) : bytes;
    cudaError_t e;
    void *p;

    if (!out)
        return cudaErrorInvalidValue;
    *out = NULL;
    if (bytes == 0)
        return cudaSuccess;
    if (bytes > SIZE_MAX / 2)
        return cudaErrorMemoryAllocation;
    e = device ? fake_charge(charge) : charge_pinned(charge);
    if (e)
        return e;
    p = map(bytes);
    if (!p) {
        device ? fake_refund(charge) : refund_pinned(charge);
        return cudaErrorMemoryAllocation;
    }
    fake_memory_open();
    fake_object_add(kind, p, bytes);
    fake_memory_close();
    *out = p;
    return cudaSuccess;
}

cudaError_t fake_free(void *p)
{
    size_t bytes;

    if (!p)
        return cudaSuccess;
    if (!fake_object_live(FAKE_DEVICE_MEMORY, p))
        return cudaErrorInvalidValue;
    fake_drain_all();
    fake_memory_open();
    fake_object_remove(FAKE_DEVICE_MEMORY, p, &bytes);
    fake_refund(charge_of(bytes));
    unmap(p, bytes, "device memory");
    fake_memory_close();
    return cudaSuccess;
}

cudaError_t fake_free_host(void *p)
{
    size_t bytes;

    if (!p)
        return cudaSuccess;
    if (!fake_object_live(FAKE_PINNED, p))
        return cudaErrorInvalidValue;
    fake_drain_all();
    fake_object_remove(FAKE_PINNED, p, &bytes);
    refund_pinned(bytes);
    unmap(p, bytes, "pinned memory");
    return cudaSuccess;
}

/* The memory that any of the bytes [start, end) lies in; empty: or that ends there. */
static const struct fake_object *memory_at(uintptr_t start, uintptr_t end)
{
    static const enum fake_kind memory[] = {FAKE_DEVICE_MEMORY, FAKE_PINNED, FAKE_REGISTERED};

    for (size_t i = 0; i < sizeof(memory) / sizeof(memory[0]); i++)
        for (const struct fake_object *o = fake_state.objects[memory[i]]; o; o = o->next) {
            uintptr_t from = (uintptr_t)o->p, to = from + o->bytes;

            if (start == end ? start >= from && start <= to : end > from && start < to)
                return o;
        }
    return NULL;
}

int fake_device_sees(const void *p)
{
    int sees;

    pthread_mutex_lock(&fake_state.lock);
    sees = memory_at((uintptr_t)p, (uintptr_t)p) != NULL;
    pthread_mutex_unlock(&fake_state.lock);
    return sees;
}

enum fake_place fake_place_of(const void *p, size_t n)
{
    uintptr_t a = (uintptr_t)p, b = a + n;
    enum fake_place place = FAKE_AT_PAGEABLE;
    const struct fake_object *o;

    if (!p || b < a)
        return FAKE_AT_NOWHERE;
    pthread_mutex_lock(&fake_state.lock);
    o = memory_at(a, b);
    if (o)
        place = a < (uintptr_t)o->p || b > (uintptr_t)o->p + o->bytes ? FAKE_AT_NOWHERE
                : o->kind == FAKE_DEVICE_MEMORY                       ? FAKE_AT_DEVICE
                                                                      : FAKE_AT_PINNED;
    pthread_mutex_unlock(&fake_state.lock);
    return place;
}

cudaError_t cudaMalloc(void **devPtr, size_t size)
{
    cudaError_t e = fake_enter("cudaMalloc", 0);

    return fake_leave(e ? e : allocate(devPtr, size, FAKE_DEVICE_MEMORY));
}

cudaError_t cudaHostAlloc(void **pHost, size_t size, unsigned int flags)
{
    cudaError_t e = fake_enter("cudaHostAlloc", 0);

    if (!e && flags > 7)
        e = cudaErrorInvalidValue;
    return fake_leave(e ? e : allocate(pHost, size, FAKE_PINNED));
}

/* What gives back does so even where it reports an error of before, or one that was injected. */
cudaError_t cudaFree(void *devPtr)
{
    cudaError_t e = fake_enter("cudaFree", 0), own = fake_free(devPtr);

    return fake_leave(e ? e : own);
}

cudaError_t cudaFreeHost(void *ptr)
{
    cudaError_t e = fake_enter("cudaFreeHost", 0), own = fake_free_host(ptr);

    return fake_leave(e ? e : own);
}

cudaError_t cudaHostRegister(void *ptr, size_t size, unsigned int flags)
{
    cudaError_t e = fake_enter("cudaHostRegister", 0);

    if (!e && (!ptr || !size || flags > 15))
        e = cudaErrorInvalidValue;
    if (!e && fake_place_of(ptr, size) != FAKE_AT_PAGEABLE)
        e = cudaErrorHostMemoryAlreadyRegistered;
    if (!e)
        e = charge_pinned(size);
    if (!e)
        fake_object_add(FAKE_REGISTERED, ptr, size);
    return fake_leave(e);
}

cudaError_t cudaHostUnregister(void *ptr)
{
    cudaError_t e = fake_enter("cudaHostUnregister", 0), own = cudaErrorHostMemoryNotRegistered;
    size_t bytes;

    if (fake_object_live(FAKE_REGISTERED, ptr)) {
        fake_drain_all();
        fake_object_remove(FAKE_REGISTERED, ptr, &bytes);
        refund_pinned(bytes);
        own = cudaSuccess;
    }
    return fake_leave(e ? e : own);
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    cudaError_t e = fake_enter("cudaMemGetInfo", 0);

    if (!e && (!free || !total))
        e = cudaErrorInvalidValue;
    if (!e) {
        pthread_mutex_lock(&fake_state.lock);
        *total = fake_state.options.memory;
        *free = left();
        pthread_mutex_unlock(&fake_state.lock);
    }
    return fake_leave(e);
}
