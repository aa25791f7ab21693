/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of the fake: its options, the count of calls, injected failures, and the rules by which
 * an error stays (sticky errors) or is forgotten (cudaGetLastError).
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/runtime/runtime.h"

struct fake_state fake_state = {.lock = PTHREAD_MUTEX_INITIALIZER};

static atomic_uint_fast64_t calls;
static atomic_int configured, sticky, fault;
static _Thread_local cudaError_t last_error, planned_fault;
static _Thread_local int in_callback;

int fake_say(const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return fprintf(stderr, "fake cuda: %s\n", text);
}

static void refuse_word(const char *word)
{
    fake_say("TR_FAKE_CUDA: cannot read '%s'", word);
    abort();
}

static size_t read_size(const char *word, const char *text)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB"};
    char *end;
    unsigned long long n = strtoull(text, &end, 10);

    for (unsigned i = 0; isdigit((unsigned char)*text) && i < 4; i++)
        if (!strcmp(end, units[i]))
            return (size_t)n << 10 * i;
    refuse_word(word);
    return 0;
}

static void read_fail(struct fake_options *o, const char *word, const char *text)
{
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    char *at;

    if (!n || n >= sizeof(o->fail_name) || !colon[1] || strlen(colon) > sizeof(o->fail_how))
        refuse_word(word);
    snprintf(o->fail_name, sizeof(o->fail_name), "%.*s", (int)n, text);
    snprintf(o->fail_how, sizeof(o->fail_how), "%s", colon + 1);
    o->fail_call = strtoull(o->fail_name, NULL, 10);
    if ((at = strchr(o->fail_name, '@'))) {
        *at = '\0';
        o->fail_nth = strtoull(at + 1, NULL, 10);
    }
}

static void read_word(struct fake_options *o, const char *word)
{
    const struct {
        const char *name;
        size_t *to;
    } sizes[] = {{"memory=", &o->memory},
                 {"overhead=", &o->overhead},
                 {"cublas=", &o->cublas},
                 {"pinned=", &o->pinned}};
    const struct {
        const char *name;
        int *to;
    } numbers[] = {{"devices=", &o->devices},
                   {"driver=", &o->driver},
                   {"sm=", &o->sm},
                   {"leaks=", &o->leaks},
                   {"protect=", &o->protect}};
    const char *value = strchr(word, '=');
    size_t n = value ? (size_t)(value + 1 - word) : 0;

    value = n ? word + n : "";
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        if (n && !strncmp(word, sizes[i].name, n) && !sizes[i].name[n]) {
            *sizes[i].to = read_size(word, value);
            return;
        }
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (n && !strncmp(word, numbers[i].name, n) && !numbers[i].name[n]) {
            *numbers[i].to = (int)read_size(word, value);
            return;
        }
    if (!strncmp(word, "delay=", 6))
        o->delay = (unsigned)read_size(word, value);
    else if (!strncmp(word, "fail=", 5))
        read_fail(o, word, value);
    else if (!strncmp(word, "count=", 6))
        snprintf(o->count, sizeof(o->count), "%s", value);
    else if (!strcmp(word, "blas=shape"))
        o->blas_shape = 1;
    else
        refuse_word(word);
}

/* The lock is held. */
static void configure(const char *words)
{
    struct fake_options o = {.memory = (size_t)1 << 30,
                             .cublas = (size_t)2 << 20,
                             .pinned = SIZE_MAX,
                             .devices = 1,
                             .sm = 86,
                             .driver = CUDART_VERSION};
    char copy[2048], *rest = copy, *word;

    if (!words)
        words = getenv("TR_FAKE_CUDA");
    snprintf(copy, sizeof(copy), "%s", words ? words : "");
    while ((word = strsep(&rest, ",")))
        if (*word)
            read_word(&o, word);
    fake_state.options = o;
    fake_state.named = 0;
    atomic_store_explicit(&configured, 1, memory_order_release);
}

static void ensure_configured(void)
{
    if (atomic_load_explicit(&configured, memory_order_acquire))
        return;
    pthread_mutex_lock(&fake_state.lock);
    if (!atomic_load_explicit(&configured, memory_order_relaxed))
        configure(NULL);
    pthread_mutex_unlock(&fake_state.lock);
}

void fake_configure(const char *words)
{
    fake_free_all();
    fake_streams_join();
    fake_functions_forget();
    pthread_mutex_lock(&fake_state.lock);
    fake_state.leaked = 0;
    fake_state.used = fake_state.pinned = 0;
    configure(words);
    pthread_mutex_unlock(&fake_state.lock);
    atomic_store(&calls, 0);
    atomic_store(&sticky, 0);
    atomic_store(&fault, 0);
    last_error = planned_fault = cudaSuccess;
}

void fake_fail(uint64_t n, const char *how)
{
    ensure_configured();
    pthread_mutex_lock(&fake_state.lock);
    fake_state.options.fail_call = atomic_load(&calls) + n;
    snprintf(fake_state.options.fail_how, sizeof(fake_state.options.fail_how), "%s", how);
    pthread_mutex_unlock(&fake_state.lock);
}

uint64_t fake_calls(void)
{
    return atomic_load(&calls);
}

/* Errors after which a context is of no use any more. */
static int ends_context(cudaError_t e)
{
    return e == cudaErrorECCUncorrectable || e == cudaErrorUnknown ||
           (e >= cudaErrorIllegalAddress && e <= cudaErrorLaunchFailure &&
            e != cudaErrorLaunchOutOfResources && e != cudaErrorHostMemoryAlreadyRegistered &&
            e != cudaErrorHostMemoryNotRegistered);
}

/* Is it this call? The lock is held. */
static int is_hit(const char *name, uint64_t number)
{
    const struct fake_options *o = &fake_state.options;

    if (o->fail_call)
        return o->fail_call == number;
    if (strcmp(o->fail_name, name))
        return 0;
    return !o->fail_nth || ++fake_state.named == o->fail_nth;
}

/* What the injection says of this call: 1 and *e, how. */
static int is_to_fail(const char *name, uint64_t number, cudaError_t *e)
{
    const struct fake_options *o = &fake_state.options;
    int hit;

    pthread_mutex_lock(&fake_state.lock);
    hit = is_hit(name, number);
    if (hit && !strcmp(o->fail_how, "sticky"))
        *e = cudaErrorIllegalAddress;
    else if (hit && !strcmp(o->fail_how, "lost"))
        *e = cudaErrorUnknown;
    else if (hit)
        *e = (cudaError_t)atoi(o->fail_how);
    hit = hit && isdigit((unsigned char)o->fail_how[0]) ? 2 : hit;
    pthread_mutex_unlock(&fake_state.lock);
    return hit;
}

static cudaError_t inject(const char *name, int flags, uint64_t number)
{
    cudaError_t e = cudaSuccess;
    int hit = is_to_fail(name, number, &e);

    if (!hit)
        return cudaSuccess;
    fake_say("call %llu, %s, fails with %s as told", (unsigned long long)number, name,
             cudaGetErrorName(e));
    if (hit == 2 && ends_context(e) && (flags & FAKE_QUEUES)) {
        planned_fault = e;
        return cudaSuccess;
    }
    if (ends_context(e)) {
        atomic_store_explicit(&sticky, e, memory_order_relaxed);
        fake_fault(e);
    }
    return e;
}

cudaError_t fake_enter(const char *name, int flags)
{
    uint64_t number;
    cudaError_t e;

    ensure_configured();
    if (in_callback) {
        fake_say("%s called from a host function of a stream", name);
        return cudaErrorNotPermitted;
    }
    number = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1;
    planned_fault = cudaSuccess;
    if (fake_state.options.driver < CUDART_VERSION)
        return cudaErrorInsufficientDriver;
    if (fake_state.options.devices == 0)
        return cudaErrorNoDevice;
    e = (cudaError_t)atomic_load_explicit(&sticky, memory_order_relaxed);
    return e ? e : inject(name, flags, number);
}

cudaError_t fake_leave(cudaError_t e)
{
    if (e)
        last_error = e;
    return e;
}

void fake_set_in_callback(int on)
{
    in_callback = on;
}

cudaError_t fake_take_planned_fault(void)
{
    cudaError_t e = planned_fault;

    planned_fault = cudaSuccess;
    return e;
}

void fake_plan_fault(cudaError_t e)
{
    planned_fault = e;
}

void fake_fault(cudaError_t e)
{
    int none = cudaSuccess;

    atomic_compare_exchange_strong_explicit(&fault, &none, e, memory_order_relaxed,
                                            memory_order_relaxed);
}

int fake_dead(void)
{
    return atomic_load_explicit(&fault, memory_order_relaxed) != cudaSuccess;
}

cudaError_t fake_surface(void)
{
    int e = atomic_load_explicit(&fault, memory_order_relaxed);

    if (e)
        atomic_store_explicit(&sticky, e, memory_order_relaxed);
    return (cudaError_t)e;
}

cudaError_t cudaPeekAtLastError(void)
{
    cudaError_t e = (cudaError_t)atomic_load_explicit(&sticky, memory_order_relaxed);

    return e ? e : last_error;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = cudaPeekAtLastError();

    last_error = cudaSuccess;
    return e;
}
