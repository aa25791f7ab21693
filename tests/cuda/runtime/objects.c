/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of live things, and what is left in it at a reset or at the end of the process.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/cuda/runtime/runtime.h"

static const char *const names[FAKE_KINDS] = {
    [FAKE_STREAM] = "stream",
    [FAKE_EVENT] = "event",
    [FAKE_DEVICE_MEMORY] = "device memory",
    [FAKE_PINNED] = "pinned memory",
    [FAKE_REGISTERED] = "registered memory",
    [FAKE_BLAS_HANDLE] = "cublasLt handle",
    [FAKE_BLAS_DESC] = "cublasLt matmul descriptor",
    [FAKE_BLAS_LAYOUT] = "cublasLt matrix layout",
    [FAKE_BLAS_PREFERENCE] = "cublasLt matmul preference",
};

void fake_object_add(enum fake_kind kind, void *p, size_t bytes)
{
    struct fake_object *o = malloc(sizeof(*o));

    if (!o)
        abort();
    pthread_mutex_lock(&fake_state.lock);
    *o = (struct fake_object){kind, p, bytes, fake_calls(), fake_state.objects[kind]};
    fake_state.objects[kind] = o;
    pthread_mutex_unlock(&fake_state.lock);
}

struct fake_object *fake_object_find_locked(enum fake_kind kind, const void *p)
{
    for (struct fake_object *o = fake_state.objects[kind]; o; o = o->next)
        if (o->p == p)
            return o;
    return NULL;
}

int fake_object_live(enum fake_kind kind, const void *p)
{
    int live;

    pthread_mutex_lock(&fake_state.lock);
    live = p && fake_object_find_locked(kind, p) != NULL;
    pthread_mutex_unlock(&fake_state.lock);
    return live;
}

int fake_object_remove(enum fake_kind kind, const void *p, size_t *bytes)
{
    struct fake_object **at, *found = NULL;

    pthread_mutex_lock(&fake_state.lock);
    for (at = &fake_state.objects[kind]; *at; at = &(*at)->next)
        if ((*at)->p == p) {
            found = *at;
            *at = found->next;
            break;
        }
    pthread_mutex_unlock(&fake_state.lock);
    if (found && bytes)
        *bytes = found->bytes;
    free(found);
    return found != NULL;
}

size_t fake_leaks(void)
{
    size_t n = 0;

    pthread_mutex_lock(&fake_state.lock);
    for (int kind = 0; kind < FAKE_KINDS; kind++)
        for (struct fake_object *o = fake_state.objects[kind]; o; o = o->next, n++)
            fake_say("left behind: %s of call %llu (%zu bytes)", names[kind],
                     (unsigned long long)o->call, o->bytes);
    pthread_mutex_unlock(&fake_state.lock);
    return n;
}

/* Frees one thing; 0 when nothing is left. Streams come first: others may be in use by them. */
static int free_one(void)
{
    struct fake_object found = {.kind = FAKE_KINDS};

    pthread_mutex_lock(&fake_state.lock);
    for (int kind = 0; kind < FAKE_KINDS && found.kind == FAKE_KINDS; kind++)
        if (fake_state.objects[kind])
            found = *fake_state.objects[kind];
    pthread_mutex_unlock(&fake_state.lock);
    if (found.kind == FAKE_KINDS)
        return 0;
    if (found.kind == FAKE_STREAM) {
        fake_stream_destroy(found.p);
        fake_streams_join();
    } else if (found.kind == FAKE_EVENT) {
        fake_event_destroy(found.p);
    } else if (found.kind == FAKE_DEVICE_MEMORY) {
        fake_free(found.p);
    } else if (found.kind == FAKE_PINNED) {
        fake_free_host(found.p);
    } else { /* registered memory is the caller's */
        fake_object_remove(found.kind, found.p, NULL);
        if (found.kind != FAKE_REGISTERED)
            free(found.p);
    }
    return 1;
}

void fake_free_all(void)
{
    while (free_one())
        ;
}

cudaError_t cudaDeviceReset(void)
{
    cudaError_t e = fake_enter("cudaDeviceReset", 0);
    cudaError_t late;

    fake_drain_all();
    late = fake_surface();
    if (fake_leaks())
        fake_state.leaked = 1;
    fake_free_all();
    return fake_leave(e ? e : late);
}

static int write_count(FILE *f)
{
    if (fprintf(f, "%llu\n", (unsigned long long)fake_calls()) < 0)
        return -1;
    return fake_state.options.fail_nth ? fprintf(f, "%llu\n", (unsigned long long)fake_state.named)
                                       : 0;
}

/* After main and after all handlers of atexit: what the program forgot, and the count of calls. */
__attribute__((destructor)) static void at_exit(void)
{
    const struct fake_options *o = &fake_state.options;

    fake_streams_join();
    if (o->count[0]) {
        FILE *f = fopen(o->count, "w");

        if (!f || write_count(f) < 0 || fclose(f))
            fake_say("cannot write %s", o->count);
    }
    if ((fake_leaks() || fake_state.leaked) && o->leaks) {
        fflush(NULL);
        _exit(o->leaks);
    }
}
