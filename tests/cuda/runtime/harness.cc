/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cuda/runtime/harness.h"

char child_text[16384];

struct gate {
    int open, passed;
    struct gate *next;
};

static struct gate *closed;

static void wait_at(void *arg)
{
    struct gate *g = static_cast<struct gate *>(arg);

    while (!__atomic_load_n(&g->open, __ATOMIC_ACQUIRE))
        usleep(100);
    __atomic_store_n(&g->passed, 1, __ATOMIC_RELEASE);
}

struct gate *gate_close(cudaStream_t s)
{
    struct gate *g = static_cast<struct gate *>(calloc(1, sizeof(*g)));

    assert_non_null(g);
    OK(cudaLaunchHostFunc(s, wait_at, g));
    g->next = closed;
    closed = g;
    return g;
}

void gate_open(struct gate *g)
{
    struct gate **at = &closed;

    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    __atomic_store_n(&g->open, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&g->passed, __ATOMIC_ACQUIRE))
        usleep(100);
    free(g);
}

void fresh(const char *words)
{
    while (closed)
        gate_open(closed);
    fake_configure(words);
}

cudaStream_t new_stream(void)
{
    cudaStream_t s = nullptr;

    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}

cudaEvent_t new_event(void)
{
    cudaEvent_t e = nullptr;

    OK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    return e;
}

void *device_bytes(size_t n)
{
    void *p = nullptr;

    OK(cudaMalloc(&p, n));
    return p;
}

void *pinned_bytes(size_t n)
{
    void *p = nullptr;

    OK(cudaHostAlloc(&p, n, cudaHostAllocPortable));
    return p;
}

int peek(const void *device)
{
    int x = 0;

    OK(cudaMemcpy(&x, device, sizeof(x), cudaMemcpyDeviceToHost));
    return x;
}

/* exit, not _exit: what happens at the end of a process is part of what is tested. */
static void child(void (*fn)(void), const char *words, int fd)
{
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL); /* cmocka's would go on with the next test */
    dup2(fd, 2);
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    setenv("TR_FAKE_CUDA", words, 1);
    fake_configure(nullptr);
    fn();
    exit(0);
}

int in_child(void (*fn)(void), const char *words)
{
    size_t n = 0;
    ssize_t got;
    int fds[2], status = 0;
    pid_t pid;

    fake_configure(""); /* no thread may be left when the process is copied */
    assert_int_equal(pipe(fds), 0);
    fflush(nullptr);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        child(fn, words, fds[1]);
    close(fds[1]);
    while ((got = read(fds[0], child_text + n, sizeof(child_text) - 1 - n)) > 0)
        n += static_cast<size_t>(got);
    child_text[n] = 0;
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
