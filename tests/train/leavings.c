/* SPDX-License-Identifier: Apache-2.0
 *
 * What is left on the disk where something ends early: of a model folder opened for inference
 * nothing, already while it is open, and what a kill before has left is swept, as is that of an
 * export, be it a folder or a file; of an import that its caller stops nothing; no line of a step
 * that is not durable.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/out_file.h"
#include "src/checkpoint/out_folder.h"
#include "src/infer/infer.h"
#include "tests/train/common.h"

/* The files have no names while they are read: the greedy answer comes all the same. */
static void test_inference(void **state)
{
    struct tr_train_params p = own_job("infer");
    struct infer *f = NULL;
    struct tr_ids prompt = {0};
    const char *temporary = scratch_path("temporary");

    (void)state;
    assert_int_equal(tr_make_folder(temporary), 0);
    setenv("TMPDIR", temporary, 1);
    assert_int_equal(infer_open(&f, &(struct infer_params){.model = p.model,
                                                           .shape.batch_tokens = 16,
                                                           .shape.positions = 16,
                                                           .shape.logit_rows = 1,
                                                           .threads = 1,
                                                           .device_memory = 32 << 20}),
                     0);
    assert_int_equal(tr_folder_is_empty(temporary), 1);
    assert_int_equal(tr_ids_push(&prompt, 7), 0);
    assert_int_equal(infer_greedy(f, &prompt, 1, 4), 0);
    assert_true(prompt.n > 1);
    tr_ids_free(&prompt);
    infer_close(f);
    assert_int_equal(tr_folder_is_empty(temporary), 1);
    unsetenv("TMPDIR");
}

/* A process that makes one, with something in it, and dies without a word. */
static void leave_temporary(void)
{
    struct tr_temporary t;
    pid_t child = fork();
    char file[4500];
    int status;

    if (child == 0) {
        if (tr_temporary_make(&t, NULL) == 0) {
            snprintf(file, sizeof(file), "%s/store", t.path);
            tr_make_folder(file);
            snprintf(file, sizeof(file), "%s/store/gen0", t.path);
            tr_file_write(file, "x", 1);
        }
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

/* It goes with the next one; what is in use stays, and what has another name, and what a link leads
 * to. */
static void test_swept(void **state)
{
    struct tr_temporary mine, next;
    char base[4352], strange[4400], link[4400];

    (void)state;
    snprintf(base, sizeof(base), "%s", scratch_path("swept"));
    snprintf(strange, sizeof(strange), "%s/tailrace-abcdef", base);
    snprintf(link, sizeof(link), "%s/tailrace-temporary-abcdef", base);
    assert_int_equal(tr_make_folder(base), 0);
    assert_int_equal(tr_make_folder(strange), 0);
    setenv("TMPDIR", base, 1);
    leave_temporary();
    assert_int_equal(count_entries(base), 2);
    assert_int_equal(symlink(strange, link), 0);
    assert_int_equal(tr_temporary_make(&mine, NULL), 0);
    assert_int_equal(count_entries(base), 3); /* the strange one, the link, mine */
    assert_int_equal(tr_temporary_make(&next, NULL), 0);
    assert_int_equal(count_entries(base), 4);
    assert_int_equal(tr_temporary_remove(&mine), 0);
    assert_int_equal(tr_temporary_remove(&next), 0);
    assert_int_equal(count_entries(base), 2);
    unsetenv("TMPDIR");
}

/* A process that begins a folder, with something in it, and dies. */
static void leave_export(const char *out)
{
    struct tr_out_folder o;
    pid_t child = fork();
    char file[4500];
    int status;

    if (child == 0) {
        if (tr_out_folder_begin(&o, out) == 0) {
            snprintf(file, sizeof(file), "%s/model.safetensors", o.tmp);
            tr_file_write(file, "x", 1);
        }
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
}

/* What a killed export has left goes with the next to the same place. What is in use stays; and
 * what has the name alone, but is not surely ours; and what is behind a link. */
static void test_swept_export(void **state)
{
    char base[4352], out[4400], theirs[4500], named[4500], mark[4600], link[4500];
    struct tr_out_folder first, second;

    (void)state;
    snprintf(base, sizeof(base), "%s", scratch_path("exports"));
    snprintf(out, sizeof(out), "%s/model", base);
    snprintf(theirs, sizeof(theirs), "%s.tmp-77", out);
    snprintf(named, sizeof(named), "%s.tmp-7b", out);
    snprintf(mark, sizeof(mark), "%s/tailrace-unfinished", named);
    snprintf(link, sizeof(link), "%s.tmp-78", out);
    assert_int_equal(tr_make_folder(base), 0);
    assert_int_equal(tr_make_folder(theirs), 0);
    assert_int_equal(tr_make_folder(named), 0);
    assert_int_equal(tr_file_write(mark, "x", 1), 0);
    assert_int_equal(symlink(named, link), 0);
    leave_export(out);
    assert_int_equal(count_entries(base), 4);
    assert_int_equal(tr_out_folder_begin(&first, out), 0);
    assert_int_equal(count_entries(base), 4); /* what was left has gone, the first one's has come */
    snprintf(mark, sizeof(mark), "%s", first.tmp);
    first.tmp[strlen(first.tmp) - 1] ^= 1; /* as another process would have called it */
    assert_int_equal(rename(mark, first.tmp), 0);
    assert_int_equal(tr_out_folder_begin(&second, out), 0);
    assert_int_equal(count_entries(base), 5);
    assert_int_equal(tr_out_folder_end(&second, -EIO), -EIO);
    assert_int_equal(tr_out_folder_end(&first, 0), 0);
    assert_int_equal(count_entries(base), 4);
    assert_int_equal(tr_folder_is_empty(out), 1); /* no mark */
}

/* A process that begins a file, writes some of it, and dies. */
static void leave_file(const char *out)
{
    struct tr_out_file o;
    pid_t child = fork();
    int status;

    if (child == 0) {
        if (tr_out_file_begin(&o, out) == 0 && pwrite(o.fd, "data", 4, TR_OUT_FILE_HEAD) == 4)
            raise(SIGKILL);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

/* The same of an export that is one file. */
static void test_swept_file(void **state)
{
    static const char head[TR_OUT_FILE_HEAD] = "the first 20 bytes..";
    char base[4352], out[4400], theirs[4500], marked[4500], link[4500], pipe[4500], was[4500];
    struct tr_out_file first, second;
    char text[64] = "";
    FILE *f;

    (void)state;
    snprintf(base, sizeof(base), "%s", scratch_path("files"));
    snprintf(out, sizeof(out), "%s/m.gguf", base);
    snprintf(theirs, sizeof(theirs), "%s.tmp-77", out);
    snprintf(marked, sizeof(marked), "%s.tmp-7b", out);
    snprintf(link, sizeof(link), "%s.tmp-78", out);
    snprintf(pipe, sizeof(pipe), "%s.tmp-79", out);
    assert_int_equal(tr_make_folder(base), 0);
    assert_int_equal(tr_file_write(theirs, "a file of somebody's, longer than the mark", 42), 0);
    assert_int_equal(tr_file_write(marked, "tailrace-unfinished\n", 20), 0);
    assert_int_equal(symlink(marked, link), 0);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    leave_file(out);
    assert_int_equal(count_entries(base), 5);
    assert_int_equal(tr_out_file_begin(&first, out), 0);
    assert_int_equal(count_entries(base), 5); /* what was left has gone, the first one's has come */
    snprintf(was, sizeof(was), "%s", first.tmp);
    first.tmp[strlen(first.tmp) - 1] ^= 1; /* as another process would have called it */
    assert_int_equal(rename(was, first.tmp), 0);
    assert_int_equal(tr_out_file_begin(&second, out), 0);
    assert_int_equal(count_entries(base), 6);
    assert_int_equal(tr_out_file_end(&second, NULL, -EIO), -EIO);
    assert_int_equal(pwrite(first.fd, "data", 4, TR_OUT_FILE_HEAD), 4);
    assert_int_equal(tr_out_file_end(&first, head, 0), 0);
    assert_int_equal(count_entries(base), 5);
    f = fopen(out, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof(text), f));
    fclose(f);
    assert_string_equal(text, "the first 20 bytes..data");
    assert_int_equal(tr_out_file_begin(&first, out), -EEXIST);
    assert_int_equal(unlink(out), 0);
    assert_int_equal(symlink("nowhere", out), 0);
    assert_int_equal(tr_out_file_begin(&first, out), -EEXIST);
}

/* What somebody has put there meanwhile stays (invariant 7). */
static void test_named_meanwhile(void **state)
{
    static const char head[TR_OUT_FILE_HEAD] = "the first 20 bytes..";
    char base[4352], out[4400], *text;
    struct tr_out_file o;
    size_t n;

    (void)state;
    snprintf(base, sizeof(base), "%s", scratch_path("meanwhile"));
    snprintf(out, sizeof(out), "%s/m.gguf", base);
    assert_int_equal(tr_make_folder(base), 0);
    assert_int_equal(tr_out_file_begin(&o, out), 0);
    assert_int_equal(tr_file_write(out, "theirs", 6), 0);
    assert_int_equal(tr_out_file_end(&o, head, 0), -EEXIST);
    assert_int_equal(count_entries(base), 1);
    assert_int_equal(tr_file_read(out, 64, &text, &n), 0);
    assert_string_equal(text, "theirs");
    tr_free(TR_MEM_TEXT, text);
}

/* A file that is written whole or not at all: under the name that it has until then nobody else's
 * file is written to, nor one that a link leads to, and what a kill has left there goes. */
static void test_small_file(void **state)
{
    char base[4352], path[4400], tmp[4450], own[4450], link_to[4450], *text;
    size_t n;

    (void)state;
    snprintf(base, sizeof(base), "%s", scratch_path("small"));
    snprintf(path, sizeof(path), "%s/notes", base);
    snprintf(own, sizeof(own), "%s.tmp", path);
    snprintf(tmp, sizeof(tmp), "%s" TR_FILE_TMP, path);
    snprintf(link_to, sizeof(link_to), "%s.linked", path);
    assert_int_equal(tr_make_folder(base), 0);
    assert_int_equal(tr_file_write(own, "mine", 4), 0);
    assert_int_equal(tr_file_write(tmp, "left by a kill, and linked to", 29), 0);
    assert_int_equal(link(tmp, link_to), 0);
    assert_int_equal(tr_file_write(path, "new", 3), 0);
    assert_int_equal(count_entries(base), 3);
    assert_int_equal(tr_file_read(link_to, 100, &text, &n), 0);
    assert_int_equal(n, 29);
    tr_free(TR_MEM_TEXT, text);
    assert_int_equal(symlink(own, tmp), 0);
    assert_int_equal(tr_file_write(path, "newer", 5), -ELOOP);
    assert_int_equal(tr_file_read(own, 100, &text, &n), 0);
    assert_string_equal(text, "mine");
    tr_free(TR_MEM_TEXT, text);
}

#define WRITERS 4

/* Two and more at once: what is read is always one's own whole file. */
static void test_many_writers(void **state)
{
    char base[4352], path[4400], *text;
    pid_t child[WRITERS];
    int status;
    size_t n;

    (void)state;
    snprintf(base, sizeof(base), "%s", scratch_path("writers"));
    snprintf(path, sizeof(path), "%s/file", base);
    assert_int_equal(tr_make_folder(base), 0);
    assert_int_equal(tr_file_write(path, "aaa", 3), 0);
    for (int i = 0; i < WRITERS; i++) {
        char mine[4 * WRITERS];

        memset(mine, 'a' + i, sizeof(mine));
        child[i] = fork();
        for (int k = 0; child[i] == 0 && k < 50; k++)
            if (tr_file_write(path, mine, 3 + 3 * (size_t)i) < 0)
                _exit(1);
        if (child[i] == 0)
            _exit(0);
    }
    for (int k = 0; k < 1000; k++) {
        assert_int_equal(tr_file_read(path, 100, &text, &n), 0);
        assert_int_equal(n, 3 + 3 * (text[0] - 'a'));
        for (size_t i = 1; i < n; i++)
            assert_int_equal(text[i], text[0]);
        tr_free(TR_MEM_TEXT, text);
    }
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(count_entries(base), 1);
}

/* Where a link has the name of a folder that is removed, the link goes. */
static void test_removed_link(void **state)
{
    char folder[4352], link[4352];

    (void)state;
    snprintf(folder, sizeof(folder), "%s", scratch_path("behind-a-link"));
    snprintf(link, sizeof(link), "%s", scratch_path("a-link"));
    assert_int_equal(tr_make_folder(folder), 0);
    assert_int_equal(tr_file_write(scratch_path("behind-a-link/file"), "x", 1), 0);
    assert_int_equal(symlink(folder, link), 0);
    assert_int_equal(tr_remove_tree(link), 0);
    assert_int_equal(access(link, F_OK), -1);
    assert_int_equal(count_entries(folder), 1);
}

/* A run that was killed while it wrote its very first file is begun anew. */
static void test_begun(void **state)
{
    struct tr_train_params p = own_job("begun");
    char left[4400];

    (void)state;
    snprintf(left, sizeof(left), "%s/run.yaml" TR_FILE_TMP, p.out);
    assert_int_equal(tr_make_folder(p.out), 0);
    assert_int_equal(close(open(left, O_WRONLY | O_CREAT, 0644)), 0);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(access(left, F_OK), -1);
}

static int stop_half_way(void *arg, uint64_t done, uint64_t total)
{
    ++*(int *)arg;
    return done > total / 2;
}

static int always(void *arg)
{
    (void)arg;
    return 1;
}

static void test_stopped_reading(void **state)
{
    struct tr_train_params p = own_job("reading");
    tr_run *run = NULL;

    (void)state;
    token_data(p.data, 8000, 16, 16, 40);
    p.stop = always;
    assert_int_equal(tr_train_open(&run, &p), -EINTR);
    assert_non_null(strstr(tr_message(), "reading.jsonl: reading it was interrupted"));
    assert_int_equal(tr_folder_is_empty(p.out), -ENOENT);
}

static void test_stopped_import(void **state)
{
    struct tr_train_params p = own_job("stop");
    struct tr_step_report last;
    tr_run *run = NULL;
    int calls = 0;

    (void)state;
    p.importing = stop_half_way;
    p.importing_arg = &calls;
    assert_int_equal(tr_train_open(&run, &p), -EINTR);
    assert_non_null(strstr(tr_message(), "interrupted"));
    assert_true(calls > 1);
    assert_int_equal(tr_folder_is_empty(p.out), -ENOENT);
    p.importing = NULL;
    assert_int_equal(train(&p, &last), 0);
}

/* What another process does while this one still reads the data: it makes a run there. */
static void make_between(void *arg, const char *line)
{
    static int made;

    if (made || strncmp(line, "data: ", 6))
        return;
    made = 1;
    if (train_part(arg, 1) < 0)
        fail_msg("%s", tr_message());
}

/* The folder was empty when it was first looked at: the second is refused, and takes nothing. */
static void test_made_between(void **state)
{
    struct tr_train_params p = own_job("between"), other = p;
    struct tr_step_report last;
    tr_run *run = NULL;
    int r;

    (void)state;
    p.log = make_between;
    p.log_arg = &other;
    r = tr_train_open(&run, &p);
    if (r != -EEXIST || !strstr(tr_message(), "meanwhile"))
        fail_msg("%d: %s", r, tr_message());
    assert_int_equal(train(&other, &last), 0);
    assert_int_equal(last.step, other.steps);
}

static int plan_fails;

int __real_run_write_plan(const struct tr_run *run);
int __wrap_run_write_plan(const struct tr_run *run);

int __wrap_run_write_plan(const struct tr_run *run)
{
    return plan_fails ? tr_error(-EIO, "plan.json: cannot sync") : __real_run_write_plan(run);
}

/* Once there is a commit, there is a run: what fails behind it takes nothing back. */
static void test_failed_behind_import(void **state)
{
    struct tr_train_params p = own_job("behind");
    tr_run *run = NULL;

    (void)state;
    plan_fails = 1;
    assert_int_equal(tr_train_open(&run, &p), -EIO);
    plan_fails = 0;
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
}

/* An error of a step is the last word of the run, and tells the same each time. */
static void ends_with(tr_run *run, int code, const char *message)
{
    struct tr_step_report report;

    for (int i = 0; i < 2; i++) {
        tr_verify_run("", NULL, &(char *){NULL}); /* another message */
        assert_int_equal(tr_train_step(run, &report), code);
        assert_string_equal(tr_message(), message);
        tr_verify_run("", NULL, &(char *){NULL});
        assert_int_equal(tr_train_finish(run), code);
        assert_string_equal(tr_message(), message);
    }
}

static int settle_fails;

int __real_run_settle(struct tr_run *run);
int __wrap_run_settle(struct tr_run *run);

int __wrap_run_settle(struct tr_run *run)
{
    return settle_fails ? tr_error(-EIO, "cut off") : __real_run_settle(run);
}

static int step_fails;

int __real_run_step(struct tr_run *run, struct tr_step_report *report);
int __wrap_run_step(struct tr_run *run, struct tr_step_report *report);

int __wrap_run_step(struct tr_run *run, struct tr_step_report *report)
{
    if (step_fails && step_fails--)
        return tr_error(-EBADMSG, "scratch: damaged");
    return __real_run_step(run, report);
}

/* Damage that is not in the store costs no step that is done; and once is enough. */
static void test_damaged_within_a_step(void **state)
{
    struct tr_train_params p = own_job("scratch");
    struct tr_step_report report;
    tr_run *run = NULL;
    int validated;

    (void)state;
    assert_int_equal(train_part(&p, 2), 0);
    assert_int_equal(tr_train_open(&run, &p), 0);
    step_fails = 2;
    assert_int_equal(tr_train_step(run, &report), -EBADMSG);
    tr_train_close(run);
    assert_int_equal(tr_train_open(&run, &p), 0);
    step_fails = 1;
    assert_int_equal(tr_train_step(run, &report), 1);
    assert_int_equal(report.step, 3);
    tr_train_close(run);
    assert_int_equal(train(&p, NULL), 0);
    assert_int_equal(metrics_lines(p.out, &validated), 4);
}

/* An export that fails is tried again by the same call; one that is made is made once. */
static void test_export_again(void **state)
{
    struct tr_train_params p = own_job("again");
    struct tr_step_report report;
    tr_run *run = NULL;
    char source[4400], taken[4400];
    uint64_t hash;

    (void)state;
    assert_int_equal(train(&p, NULL), 0);
    hash = file_hash(scratch_path("again-run/model/model.safetensors"));
    assert_int_equal(tr_remove_tree(p.out), 0);
    assert_int_equal(tr_train_open(&run, &p), 0);
    snprintf(taken, sizeof(taken), "%s.tmp-%ld", scratch_path("again-run/model"), (long)getpid());
    assert_int_equal(tr_file_write(taken, "a file", 6), 0); /* is nobody's concern */
    snprintf(source, sizeof(source), "%s", scratch_path("again-run/source"));
    assert_int_equal(rename(source, scratch_path("again-run/aside")), 0);
    while (tr_train_step(run, &report) == 1)
        ;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tr_train_finish(run), -ENOENT);
        assert_non_null(strstr(tr_message(), source));
        assert_int_equal(tr_train_step(run, &report), 0);
    }
    assert_int_equal(rename(scratch_path("again-run/aside"), source), 0);
    for (int i = 0; i < 2; i++)
        if (tr_train_finish(run) < 0)
            fail_msg("%s", tr_message());
    assert_string_not_equal(tr_train_outcome(run), "");
    tr_train_close(run);
    assert_true(file_hash(scratch_path("again-run/model/model.safetensors")) == hash);
    assert_int_equal(access(taken, F_OK), 0);
    assert_int_equal(tr_folder_is_empty(scratch_path("again-run/model-4")), -ENOENT);
}

static off_t synced[2]; /* bytes of metrics.jsonl and of .next at their last sync */

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

int __wrap_fdatasync(int fd)
{
    char link[32], path[4400] = "";
    struct stat st;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof(path) - 1) > 0 && strstr(path, "metrics.jsonl") &&
        fstat(fd, &st) == 0)
        synced[strstr(path, ".next") != NULL] = st.st_size;
    return __real_fdatasync(fd);
}

/* The last step of the whole lines in so many bytes of the file. */
static unsigned long long step_within(const char *path, off_t bytes)
{
    FILE *f = fopen(path, "r");
    unsigned long long step = 0;
    char line[1024];

    assert_non_null(f);
    while (fgets(line, sizeof(line), f) && ftell(f) <= bytes)
        assert_int_equal(sscanf(line, "{\"step\": %llu", &step), 1);
    fclose(f);
    return step;
}

/* A file that is emptied loses its bytes at once, one that is written keeps what was synced. */
static void expect_safe(const struct tr_metrics *m, unsigned long long step)
{
    unsigned long long file = step_within(m->path, synced[0]);
    unsigned long long next = step_within(m->next_path, synced[1]);

    if (file < step && next < step)
        fail_msg("the line of step %llu is lost with the power: %llu, %llu", step, file, next);
}

/* From the moment when a commit may be durable its line is on the disk, in one file or the other;
 * a kill leaves it in both, and the run has it once. */
static void test_lines_without_power(void **state)
{
    struct tr_step_report report = {0};
    struct tr_metrics m, killed;
    const char *folder = scratch_path("power");
    int validated;

    (void)state;
    assert_int_equal(tr_make_folder(folder), 0);
    assert_int_equal(metrics_open(&m, folder), 0);
    for (report.step = 1; report.step <= 3; report.step++) {
        m.synced = 0; /* a second later */
        assert_int_equal(metrics_add(&m, &report), 0);
        assert_int_equal(metrics_begin(&m), 0);
        expect_safe(&m, (unsigned long long)report.step);
        assert_int_equal(metrics_settle(&m), 0);
        expect_safe(&m, (unsigned long long)report.step);
        assert_int_equal(metrics_lines(folder, &validated), (int)report.step);
    }
    assert_int_equal(metrics_open(&killed, folder), 0);
    assert_int_equal(metrics_rewind(&killed, 3), 0);
    expect_safe(&killed, 3);
    assert_int_equal(metrics_lines(folder, &validated), 3);
    metrics_close(&killed);
    metrics_close(&m);
    assert_int_equal(tr_folder_holds_only(folder, "metrics.jsonl"), 1);
}

/* No line of ours is so long: it is none, and is held in no memory. */
static void test_endless_line(void **state)
{
    const char *folder = scratch_path("endless");
    struct tr_step_report report = {.step = 1};
    struct tr_metrics m;
    char path[4400];
    int validated;
    FILE *f;

    (void)state;
    snprintf(path, sizeof(path), "%s/metrics.jsonl", folder);
    assert_int_equal(tr_make_folder(folder), 0);
    assert_int_equal(metrics_open(&m, folder), 0);
    assert_int_equal(metrics_add(&m, &report), 0);
    assert_int_equal(metrics_begin(&m), 0);
    assert_int_equal(metrics_settle(&m), 0);
    f = fopen(path, "a");
    fprintf(f, "{\"step\": 2, \"loss\": %800s}\n", "1");
    fclose(f);
    assert_int_equal(metrics_rewind(&m, 2), 0);
    assert_int_equal(metrics_lines(folder, &validated), 1);
    metrics_close(&m);
}

/* Nobody writes to the pipes, or reads; what a link leads to is not the run's, nor made by it. */
static void test_pipes_and_links(void **state)
{
    static const char *const names[] = {"metrics.jsonl", "metrics.jsonl.next"};
    const char *folder = scratch_path("pipes");

    (void)state;
    assert_int_equal(tr_make_folder(folder), 0);
    for (int i = 0; i < 4; i++) {
        struct tr_metrics m;
        char path[4400];

        snprintf(path, sizeof(path), "%s/%s", folder, names[i / 2]);
        assert_int_equal(i % 2 ? symlink("yours", path) : mkfifo(path, 0600), 0);
        assert_true(metrics_open(&m, folder) < 0);
        assert_non_null(strstr(tr_message(), path));
        metrics_close(&m);
        assert_int_equal(unlink(path), 0);
    }
}

static const char *committing; /* a run whose commits are looked at; or NULL */
static int commits;

int __real_tr_offload_commit(struct tr_offload *o, const void *payload, size_t bytes);
int __wrap_tr_offload_commit(struct tr_offload *o, const void *payload, size_t bytes);

/* When a commit of step n begins, steps before it may have a line, and it may not. */
int __wrap_tr_offload_commit(struct tr_offload *o, const void *payload, size_t bytes)
{
    struct tr_cursor c;
    int validated;

    assert_int_equal(tr_cursor_parse(payload, bytes, &c), 0);
    if (committing && metrics_lines(committing, &validated) != (int)c.step - 1)
        fail_msg("%d lines when the commit of step %d begins",
                 metrics_lines(committing, &validated), (int)c.step);
    commits += committing != NULL;
    return __real_tr_offload_commit(o, payload, bytes);
}

/* The line of a step comes when its commit is durable, and not before. */
static void test_late_lines(void **state)
{
    struct tr_train_params p = own_job("late");
    int validated;

    (void)state;
    committing = p.out;
    assert_int_equal(train(&p, NULL), 0);
    committing = NULL;
    assert_int_equal(commits, 4);
    assert_int_equal(metrics_lines(p.out, &validated), 4);
}

/* A run that is cut off between a step and its validation has neither. */
static void test_cut_off_validation(void **state)
{
    struct tr_train_params p = own_job("validated");
    struct tr_step_report report;
    tr_run *run = NULL;
    int validated;

    (void)state;
    p.valid = p.data;
    p.eval_every = 2;
    assert_int_equal(tr_train_open(&run, &p), 0);
    assert_int_equal(tr_train_step(run, &report), 1);
    settle_fails = 1; /* which comes first in a validation */
    assert_int_equal(tr_train_step(run, &report), -EIO);
    settle_fails = 0; /* what the step has left half done is never made whole */
    ends_with(run, -EIO, "cut off");
    tr_train_close(run);
    assert_int_equal(metrics_lines(p.out, &validated), 1);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(metrics_lines(p.out, &validated), 4);
    assert_int_equal(validated, 2);
}

/* Who wants the run to stop need not wait for a validation: its step counts, without its figure.
 * The last one ends by itself. */
static void test_stopped_validation(void **state)
{
    struct tr_train_params p = own_job("unheard");
    struct tr_step_report report;
    tr_run *run = NULL;
    uint64_t expected;
    int validated;

    (void)state;
    p.valid = p.data;
    p.eval_every = 2;
    assert_int_equal(train(&p, NULL), 0);
    expected = file_hash(scratch_path("unheard-run/model/model.safetensors"));
    assert_int_equal(tr_remove_tree(p.out), 0);
    p.stop = always;
    assert_int_equal(tr_train_open(&run, &p), 0);
    while (tr_train_step(run, &report) == 1)
        assert_int_equal(isfinite(report.eval_loss) != 0, report.step == 4);
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    assert_int_equal(metrics_lines(p.out, &validated), 4);
    assert_int_equal(validated, 1);
    assert_true(file_hash(scratch_path("unheard-run/model/model.safetensors")) == expected);
}

/* The disk is full in the middle of a line: none of it stays, and later all of them are whole. */
static void test_cut_short(void **state)
{
    struct tr_step_report report = {.step = 1, .steps = 3};
    const char *folder = scratch_path("cut-short");
    struct rlimit old, full;
    struct tr_metrics m;
    struct stat st;
    char path[4400];
    int validated;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    snprintf(path, sizeof(path), "%s/metrics.jsonl", folder);
    assert_int_equal(tr_make_folder(folder), 0);
    assert_int_equal(metrics_open(&m, folder), 0);
    for (; report.step <= 2; report.step++)
        assert_int_equal(metrics_add(&m, &report), 0);
    assert_int_equal(metrics_begin(&m), 0);
    getrlimit(RLIMIT_FSIZE, &old);
    full = (struct rlimit){500, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &full);
    assert_int_equal(metrics_settle(&m), -EFBIG);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(metrics_settle(&m), 0);
    metrics_close(&m);
    assert_int_equal(metrics_lines(folder, &validated), 2);
    assert_int_equal(tr_folder_holds_only(folder, "metrics.jsonl"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inference),
        cmocka_unit_test(test_swept),
        cmocka_unit_test(test_swept_export),
        cmocka_unit_test(test_swept_file),
        cmocka_unit_test(test_named_meanwhile),
        cmocka_unit_test(test_stopped_import),
        cmocka_unit_test(test_stopped_reading),
        cmocka_unit_test(test_made_between),
        cmocka_unit_test(test_failed_behind_import),
        cmocka_unit_test(test_cut_off_validation),
        cmocka_unit_test(test_stopped_validation),
        cmocka_unit_test(test_damaged_within_a_step),
        cmocka_unit_test(test_late_lines),
        cmocka_unit_test(test_lines_without_power),
        cmocka_unit_test(test_endless_line),
        cmocka_unit_test(test_pipes_and_links),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_small_file),
        cmocka_unit_test(test_many_writers),
        cmocka_unit_test(test_removed_link),
        cmocka_unit_test(test_begun),
        cmocka_unit_test(test_export_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
