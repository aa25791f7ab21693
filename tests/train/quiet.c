/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 10, at run time: the library prints nothing, installs no signal handler and ends no
 * process, whatever goes well or wrong. A child whose standard output and error are a pipe, and
 * whose signals have handlers of its own, trains, evaluates, generates, exports, verifies and is
 * refused; then the pipe must be empty and the handlers be what they were. That the test sees a
 * word is shown by one said in a notice, and a handler by one that is set there.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/checkpoint/keep.h"
#include "tests/train/common.h"

enum defect { NONE, SAYS, CATCHES };

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGXFSZ, SIGSEGV, SIGBUS, SIGFPE};
#define SIGNALS (sizeof(signals) / sizeof(signals[0]))

static char text[4352], tokenizer[4352], model[4352], run[4352], out[4352];

static void own(int number)
{
    (void)number;
}

static void notice(void *arg, const char *line)
{
    enum defect defect = *(enum defect *)arg;

    if (defect == SAYS)
        fprintf(stderr, "%s\n", line);
    if (defect == CATCHES)
        signal(SIGTERM, SIG_IGN);
}

static int use(enum defect defect)
{
    struct tr_train_params p = {.model = model,
                                .tokenizer = tokenizer,
                                .data = text,
                                .valid = text,
                                .out = run,
                                .steps = 3,
                                .batch_size = 2,
                                .seq_len = 32,
                                .device_memory = 64 << 20,
                                .threads = 2,
                                .log = notice,
                                .log_arg = &defect};
    struct tr_eval_params e = {
        .model = run, .data = text, .seq_len = 32, .device_memory = 64 << 20, .threads = 2};
    struct tr_generate_params g = {.model = run, .prompt = "the", .max_tokens = 3, .threads = 2};
    struct tr_export_run_params x = {.run = run, .out = out};
    struct tr_eval_report report;
    struct tr_step_report last;
    char *said;
    int r = train(&p, &last);

    if (r == 0)
        r = tr_eval_data(&e, &report);
    if (r == 0 && (r = tr_generate_text(&g, &said)) == 0)
        tr_free_text(said);
    if (r == 0)
        r = tr_export_run(&x, NULL);
    if (r == 0)
        r = (int)tr_verify_run(run, NULL, &said);
    if (r == 0)
        tr_free_text(said);
    p.model = "/nowhere";
    p.out = scratch_path("refused");
    if (r == 0 && train(&p, &last) == 0)
        return -1;
    p.model = model;
    p.device_memory = 4096; /* too little of it, and a folder that is somebody's */
    if (r == 0 && train(&p, &last) == 0)
        return -1;
    return r;
}

/* 0: used, with every signal's handler as it was. */
static int child(enum defect defect, int to)
{
    dup2(to, STDOUT_FILENO);
    dup2(to, STDERR_FILENO);
    for (size_t i = 0; i < SIGNALS; i++)
        signal(signals[i], own);
    if (use(defect) < 0)
        return 2;
    for (size_t i = 0; i < SIGNALS; i++) {
        struct sigaction is;

        if (sigaction(signals[i], NULL, &is) < 0 || is.sa_handler != own)
            return 3;
    }
    return 0;
}

/* How the child ended; *bytes: what it said. */
static int in_child(enum defect defect, size_t *bytes)
{
    char said[4096];
    int ends[2], status;
    ssize_t n;
    pid_t pid;

    tr_remove_tree(run);
    tr_remove_tree(out);
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child(defect, ends[1]));
    close(ends[1]);
    *bytes = 0;
    while ((n = read(ends[0], said, sizeof(said) - 1)) > 0) {
        said[n] = 0;
        *bytes += (size_t)n;
        if (defect == NONE)
            print_message("said: %s\n", said);
    }
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The checksums of all files of a folder, in order. */
static char *print_of(const char *folder)
{
    json_t *sums = tr_keep_sums(folder);
    char *print = sums ? json_dumps(sums, JSON_SORT_KEYS) : NULL;

    assert_non_null(print);
    json_decref(sums);
    return print;
}

static void the_library_is_quiet(void **state)
{
    static const struct tiny small = {"llama", 32, 48, 2, 4, 2, 8, 262, 64, ""};
    char *before, *after;
    size_t bytes;

    (void)state;
    tiny_tokenizer(text, tokenizer);
    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(run, sizeof(run), "%s", scratch_path("run"));
    snprintf(out, sizeof(out), "%s", scratch_path("out"));
    tiny_model(model, &small, TR_TYPE_F32, 5);
    before = print_of(model);
    assert_int_equal(in_child(NONE, &bytes), 0);
    assert_int_equal(bytes, 0);
    after = print_of(model);
    assert_string_equal(before, after); /* invariant 7 */
    free(before);
    free(after);
    assert_int_equal(in_child(SAYS, &bytes), 0);
    assert_true(bytes > 0);
    assert_int_equal(in_child(CATCHES, &bytes), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_library_is_quiet)};

    return cmocka_run_group_tests_name("quiet", tests, NULL, NULL);
}
