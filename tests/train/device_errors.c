/* SPDX-License-Identifier: Apache-2.0
 *
 * A device that fails under the program (invariant 2): the command line trains on the fake cuda
 * device, and one of its calls fails, early or late, at once or when the work is waited for, once
 * or for good. Every time the program ends by itself with exit code 1 and one line that names the
 * error; a device that does not open leaves no run behind; the same command then continues at most
 * one reported step behind and exports the bytes of a run that nothing happened to. A failure that
 * changes nothing, such as of what gives memory back, may pass unseen: the bytes are compared then,
 * too.
 *
 * Odd lives find the parameters in host memory, even ones stream them through staging buffers; two
 * of four do their I/O by threads. The wait for a process has an end, so a hang is a failure. That
 * a copy out which failed is caught where the device keeps silent about it, by the checksums of the
 * next load, is shown by the mutant DEVICE_DEAF of tests/offload/test_staging.c.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "tests/train/common.h"

#define PATIENCE 120 /* seconds of one process, which takes well under one */
#define STEPS    4
#define MIB      ((uint64_t)1 << 20)
#ifdef __SANITIZE_ADDRESS__ /* under which a process takes three times as long */
#define POINTS 2
#else
#define POINTS 4
#endif

static const struct tiny shape = {"llama", 32, 48, 2, 2, 1, 16, 100, 64, ""};

static char model[4352], data[4352], held_out[4352], run[4352], exported[4352];
static char said[4352], told[4352];
static uint64_t device_memory, expected;
static int points = POINTS, lives, evaluates = 1;
static const char *update_on = "device";

/* What one process made of it. */
struct life {
    int code;      /* exit code; -1: killed by a signal, the watchdog's included */
    int first;     /* the first step it reported, 0: none */
    int last;      /* and the last */
    char call[64]; /* the function that failed as told, "" if none did */
    char error[1024];
    int errors; /* lines that begin as the program's errors do */
};

static void become(const char *words)
{
    char bytes[32];

    snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)device_memory);
    setenv("TR_FAKE_CUDA", words, 1);
    if (lives & 2)
        setenv("TAILRACE_IO", "threads", 1);
    if (!freopen(said, "w", stdout) || !freopen(told, "w", stderr))
        _exit(99);
    alarm(PATIENCE);
    execl(TAILRACE, "tailrace", "train", "--model", model, "--data", data, "--out", run, "--steps",
          "4", "--batch-size", "2", "--seq-len", "32", "--durability", "step", "--device", "cuda",
          "--device-memory", bytes, "--host-memory", lives % 2 ? "64MiB" : "24MiB", "--json",
          "--update-on", update_on, evaluates ? "--eval-every" : NULL, "2", "--valid", held_out,
          (char *)NULL);
    _exit(98);
}

static void read_steps(struct life *l)
{
    FILE *f = fopen(said, "r");
    char line[1024];
    int step;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "{\"step\": %d,", &step) == 1) {
            l->first = l->first ? l->first : step;
            l->last = step;
        }
    fclose(f);
}

static void read_errors(struct life *l)
{
    FILE *f = fopen(told, "r");
    char line[1024];

    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        sscanf(line, "fake cuda: call %*u, %63[^,], fails", l->call);
        if (strncmp(line, "tailrace: ", 10))
            continue;
        l->errors++;
        snprintf(l->error, sizeof(l->error), "%s", line);
    }
    fclose(f);
}

/* One call of the program, on a device to which `fault` happens. */
static struct life live(const char *fault)
{
    struct life l = {0};
    char words[4608];
    pid_t child;
    int status;

    snprintf(words, sizeof(words), "memory=512MiB,blas=shape,delay=%d%s", lives % 3 ? 0 : lives + 1,
             fault);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        become(words);
    assert_int_equal(waitpid(child, &status, 0), child);
    l.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_steps(&l);
    read_errors(&l);
    return l;
}

static int is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(name, *names))
        names++;
    return *names != NULL;
}

/* What failed may have had no consequence: it pins memory, or gives something back, or waits for
 * the streams of a device that is closed, or makes the GPU current for one of these. */
static int may_pass(const char *call)
{
    static const char *const names[] = {"cudaHostRegister",
                                        "cudaHostUnregister",
                                        "cudaEventDestroy",
                                        "cudaStreamDestroy",
                                        "cudaStreamSynchronize",
                                        "cudaFree",
                                        "cudaSetDevice",
                                        "cublasLtDestroy",
                                        "cublasLtMatmulDescDestroy",
                                        "cublasLtMatmulPreferenceDestroy",
                                        "cublasLtMatrixLayoutDestroy",
                                        NULL};

    return is_one_of(call, names);
}

/* These belong to the device's opening, which comes before the run. */
static int is_opening(const char *call)
{
    static const char *const names[] = {"cudaGetDeviceCount",
                                        "cudaGetDeviceProperties",
                                        "cudaFuncGetAttributes",
                                        "cudaStreamCreateWithFlags",
                                        "cublasLtCreate",
                                        "cudaMemGetInfo",
                                        "cudaMalloc",
                                        NULL};

    return is_one_of(call, names);
}

static void check_failure(const struct life *l, const char *fault, const char *name)
{
    if (l->code == 0 && may_pass(l->call) && !l->errors)
        return;
    if (l->code != 1)
        fail_msg("%s at %s: exit code %d; %s", fault, l->call, l->code, l->error);
    if (l->errors != 1 || !strstr(l->error, name))
        fail_msg("%s at %s: %d errors; %s", fault, l->call, l->errors, l->error);
    if (strstr(l->error, "the device is lost") && !strstr(l->error, "committed before is intact"))
        fail_msg("%s at %s: does not say what is left; %s", fault, l->call, l->error);
    if (is_opening(l->call) && access(run, F_OK) == 0)
        fail_msg("%s at %s: a run was made of it", fault, l->call);
}

/* The step that failed may be done all the same: its evaluation comes after its commit. */
static void check_continued(const struct life *failed, const char *fault)
{
    int run_is_there = access(run, F_OK) == 0, first;
    struct life l = live("");

    if (l.code != 0 || l.errors)
        fail_msg("after %s at %s: exit code %d; %s", fault, failed->call, l.code, l.error);
    first = l.first ? l.first : STEPS + 1;
    if (failed->code == 0)
        assert_int_equal(first, STEPS + 1);
    else if (first < failed->last || first > failed->last + 1 + run_is_there)
        fail_msg("after %s at %s: %d steps were reported, and then step %d", fault, failed->call,
                 failed->last, first);
    if (file_hash(exported) != expected)
        fail_msg("after %s at %s: other bytes", fault, failed->call);
    assert_int_equal(tr_remove_tree(run), 0);
}

/* 0: no call was there to fail. `name`: of the error. */
static int fail_and_continue(const char *fault, const char *name)
{
    struct life l;
    int hit;

    tr_remove_tree(run); /* what a test before this one has left */
    l = live(fault);
    hit = l.call[0] != 0;
    lives++;
    if (!hit && l.code)
        fail_msg("%s: %s", fault, l.error);
    if (hit)
        check_failure(&l, fault, name);
    check_continued(&l, fault);
    return hit;
}

/* Calls of a run that nothing happens to: of one function, or ("") of all. */
static uint64_t count_calls(const char *function)
{
    unsigned long long all = 0, named = 0;
    char words[4400], path[4352];
    FILE *f;

    tr_remove_tree(run);
    snprintf(path, sizeof(path), "%s", scratch_path("count"));
    snprintf(words, sizeof(words), ",count=%s,fail=%s@1000000:1", path, *function ? function : "-");
    assert_int_equal(live(words).code, 0);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%llu %llu", &all, &named), 2);
    fclose(f);
    assert_int_equal(tr_remove_tree(run), 0);
    return *function ? named : all;
}

/* ---- any call ---- */

/* Calls spread over the whole run, closer together where it begins. */
static void any_call_fails(const char *how, const char *name)
{
    uint64_t calls = count_calls("");

    assert_true(calls > 400);
    for (uint64_t i = 0; i < points; i++) {
        char fault[64];

        snprintf(fault, sizeof(fault), ",fail=%llu:%s",
                 (unsigned long long)(1 + calls * i * (i + 2) / (points * (points + 2))), how);
        assert_true(fail_and_continue(fault, name));
    }
}

static void test_out_of_memory(void **state)
{
    (void)state;
    any_call_fails("2", "out of memory");
}

static void test_launch_failure(void **state)
{
    (void)state;
    any_call_fails("719", "cudaErrorLaunchFailure");
}

static void test_illegal_address(void **state)
{
    (void)state;
    any_call_fails("700", "cudaErrorIllegalAddress");
}

static void test_lost(void **state)
{
    (void)state;
    any_call_fails("lost", "cudaErrorUnknown");
}

/* ---- calls of one kind ---- */

/* `points` calls of a function, from a place in the run to another, both as shares of it. */
static void calls_fail(const char *function, double from, double to, const char *how,
                       const char *name)
{
    double calls = (double)count_calls(function);

    assert_true(calls >= 4 * points);
    for (int i = 0; i < points; i++) {
        double at = (from + (to - from) * i / (points - 1)) * (calls - 1);
        char fault[96];

        snprintf(fault, sizeof(fault), ",fail=%s@%llu:%s", function, 1 + (unsigned long long)at,
                 how);
        assert_true(fail_and_continue(fault, name));
    }
}

static void test_launches(void **state)
{
    (void)state;
    calls_fail("launch", 0, 1, "701", "cudaErrorLaunchOutOfResources");
}

/* An update that is not launched leaves the weights as they were. With all parameters in their
 * slots nobody waits for a load after it: at the end of a step, the commit is next. */
static void test_last_launches(void **state)
{
    uint64_t budget = device_memory, calls;

    (void)state;
    evaluates = 0;
    device_memory += 16 * MIB;
    calls = count_calls("launch");
    assert_int_equal(calls % STEPS, 0); /* the steps are alike */
    for (uint64_t i = 0; i < points; i++) {
        char fault[64];

        snprintf(fault, sizeof(fault), ",fail=launch@%llu:701",
                 (unsigned long long)(calls / STEPS * 2 - i));
        assert_true(fail_and_continue(fault, "cudaErrorLaunchOutOfResources"));
    }
    device_memory = budget;
    evaluates = 1;
}

static void test_copies(void **state)
{
    (void)state;
    calls_fail("cudaMemcpyAsync", 0, 1, "1", "cudaErrorInvalidValue");
    calls_fail("cudaMemcpyAsync", 0.1, 0.9, "719", "cudaErrorLaunchFailure");
}

static void test_host_functions(void **state)
{
    (void)state;
    calls_fail("cudaLaunchHostFunc", 0, 1, "2", "cudaErrorMemoryAllocation");
    calls_fail("cudaLaunchHostFunc", 0.1, 0.9, "700", "cudaErrorIllegalAddress");
}

/* Between the device and the cpu, which waits for gradients and weights to come. */
static void test_update_on_the_cpu(void **state)
{
    (void)state;
    update_on = "cpu";
    calls_fail("cudaMemcpyAsync", 0.4, 0.6, "719", "cudaErrorLaunchFailure");
    update_on = "device";
}

/* ---- the device does not open ---- */

static void test_memory_is_taken(void **state)
{
    uint64_t budget = device_memory;
    struct life l;

    (void)state;
    device_memory = 700 * MIB;
    l = live("");
    device_memory = budget;
    assert_int_equal(l.code, 1);
    assert_int_equal(l.errors, 1);
    assert_non_null(strstr(l.error, "of the 510.0 MiB that are free"));
    assert_non_null(strstr(l.error, "--device-memory"));
    assert_int_equal(access(run, F_OK), -1);
}

/* ---- the whole run ---- */

static int setup(void **state)
{
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .steps = STEPS,
                                .batch_size = 2,
                                .seq_len = 32,
                                .valid = held_out,
                                .durability = TR_KEEP_STEP,
                                .device = "cuda",
                                .host_memory = 24 * MIB};
    struct life l;

    (void)state;
    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(held_out, sizeof(held_out), "%s", scratch_path("held-out.jsonl"));
    snprintf(run, sizeof(run), "%s", scratch_path("run"));
    snprintf(exported, sizeof(exported), "%s", scratch_path("run/model/model.safetensors"));
    snprintf(said, sizeof(said), "%s", scratch_path("said"));
    snprintf(told, sizeof(told), "%s", scratch_path("told"));
    tiny_model(model, &shape, TR_TYPE_BF16, 4);
    token_data(data, 20, 20, 32, shape.vocab);
    token_data(held_out, 2, 20, 32, shape.vocab);
    device_memory = smallest_budget(p);
    l = live("");
    if (l.code || l.first != 1 || l.last != STEPS)
        fail_msg("the run that nothing happens to: %s", l.error);
    expected = file_hash(exported);
    return tr_remove_tree(run);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_taken),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_launch_failure),
        cmocka_unit_test(test_illegal_address),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_launches),
        cmocka_unit_test(test_last_launches),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_host_functions),
        cmocka_unit_test(test_update_on_the_cpu),
    };

    if (argc > 1 && !strcmp(argv[1], "--all"))
        points = 12;
    return cmocka_run_group_tests_name("a device that fails", tests, setup, NULL);
}
