/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/program.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "offload/store.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/run/cursor.h"
#include "tests/train/common.h"

#define PATIENCE  60 /* seconds of one life, which takes a fraction of one */
#define ARGUMENTS 64

static char said_path[4352], said[65536];
static int said_fd = -1; /* instead of the path */

void program_make_inputs(int layers)
{
    const struct tiny shape = {"llama", 64, 96, layers, 4, 2, 16, 300, 64, ""};

    snprintf(said_path, sizeof(said_path), "%s", scratch_path("said"));
    tiny_model(scratch_path("model"), &shape, TR_TYPE_BF16, 4);
    token_data(scratch_path("data.jsonl"), 16, 20, 64, shape.vocab);
}

void program_speak_to(int fd)
{
    said_fd = fd;
}

static int open_said(void)
{
    return said_fd >= 0 ? said_fd : open(said_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
}

pid_t program_start_with(const char *const *arguments)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    if (dup2(open_said(), STDOUT_FILENO) < 0 || dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
        _exit(99);
    alarm(PATIENCE);
    execv(TAILRACE, (char *const *)arguments);
    _exit(98);
}

const char *program_store(const struct job *job, const char *run)
{
    static char list[8900];

    if (job->folders)
        snprintf(list, sizeof(list), "%s/store:%s/second", run, run);
    else
        snprintf(list, sizeof(list), "%s/store", run);
    return list;
}

/* Appends the words up to a NULL. */
static int add(const char **to, int n, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        to[n++] = words[i];
    assert_true(n < ARGUMENTS);
    return n;
}

pid_t program_start(const struct job *job, const struct place *place, int resume)
{
    char bytes[32], steps[8], model[4352], data[4352];
    const char *arguments[ARGUMENTS] = {"tailrace", "train", "--resume", place->run, NULL};
    const char *const store[] = {
        "--store", place->store ? place->store : program_store(job, place->run), NULL};
    const char *const common[] = {"--model",
                                  model,
                                  "--data",
                                  data,
                                  "--out",
                                  place->run,
                                  "--steps",
                                  steps,
                                  "--batch-size",
                                  "4",
                                  "--seq-len",
                                  "64",
                                  "--durability",
                                  "step",
                                  "--threads",
                                  "1",
                                  "--device",
                                  "cpu",
                                  "--device-memory",
                                  bytes,
                                  NULL};
    int n = 2;

    snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)place->device_memory);
    snprintf(steps, sizeof(steps), "%d", job->steps ? job->steps : JOB_STEPS);
    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    if (resume)
        return program_start_with(arguments);
    n = add(arguments, n, common);
    n = add(arguments, n, job->options);
    if (place->store || job->folders)
        n = add(arguments, n, store);
    arguments[n] = NULL;
    return program_start_with(arguments);
}

int program_wait(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int program_run(const struct job *job, const struct place *place, int resume)
{
    return program_wait(program_start(job, place, resume));
}

const char *program_said(void)
{
    FILE *f = fopen(said_path, "r");
    size_t n;

    assert_non_null(f);
    n = fread(said, 1, sizeof(said) - 1, f);
    said[n] = 0;
    fclose(f);
    return said;
}

int program_errors(const char **first)
{
    static char line[1024];
    const char *at = program_said();
    int n = 0;

    line[0] = 0;
    for (; *at; at += strcspn(at, "\n") + (at[strcspn(at, "\n")] == '\n'))
        if (!strncmp(at, "tailrace: ", 10) && n++ == 0)
            snprintf(line, sizeof(line), "%.*s", (int)strcspn(at, "\n"), at);
    *first = line;
    return n;
}

/* The number behind these words in what the program said, 0: it did not say them. */
static uint64_t said_number(const char *words)
{
    const char *at = strstr(program_said(), words);

    return at ? strtoull(at + strlen(words), NULL, 10) : 0;
}

/* The device's own need is refused first. */
uint64_t program_least_memory(const struct job *job)
{
    struct place place = {.run = scratch_path("never-made"), .device_memory = 4096};
    uint64_t least;

    assert_int_equal(program_run(job, &place, 0), 1);
    place.device_memory = said_number("itself needs ") + 4096;
    assert_int_equal(program_run(job, &place, 0), 1);
    least = said_number("smallest that would do is ");
    if (!least)
        fail_msg("no smallest budget in: %s", program_said());
    return least;
}

int64_t program_stands_at(const char *store)
{
    struct tr_cursor cursor;
    struct tr_store *s;
    int r = tr_store_open(&s, store, TR_STORE_READ);

    if (r == -ENODATA || r == -ENOENT)
        return -1;
    if (r < 0)
        fail_msg("after a kill: %s", tr_error_message());
    r = tr_cursor_read(s, &cursor);
    tr_store_close(s);
    assert_int_equal(r, 0);
    return (int64_t)cursor.step;
}

int program_metrics_lines(const char *run)
{
    char path[4400], line[1024];
    FILE *f;
    int n = 0, step;

    snprintf(path, sizeof(path), "%s/metrics.jsonl", run);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f) && strchr(line, '\n')) { /* the last may be torn */
        if (sscanf(line, "{\"step\": %d", &step) != 1 || step != n + 1 || !strstr(line, "}\n"))
            fail_msg("%s: line %d is: %s", path, n + 1, line);
        n++;
    }
    if (f)
        fclose(f);
    return n;
}

uint64_t program_model_hash(const char *run)
{
    char path[4400];

    snprintf(path, sizeof(path), "%s/model/model.safetensors", run);
    return file_hash(path);
}

int program_leavings(const char *run)
{
    DIR *d = opendir(run);
    struct dirent *e;
    int n = 0;

    assert_non_null(d);
    while ((e = readdir(d)))
        n += strstr(e->d_name, ".tmp") != NULL;
    closedir(d);
    return n;
}
