/* SPDX-License-Identifier: Apache-2.0
 *
 * Damage to the small files of a run: what is kept beside the weights, run.yaml, plan.json, the
 * commit records, the last line of metrics.jsonl. Each is named by whoever meets it; what can go on
 * without goes on, and says so; no setting is believed that is not as it was written. What a crash
 * may leave is no damage.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "offload/store.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/options/options.h"
#include "src/plan/plan_file.h"
#include "tests/train/common.h"

/* A byte of RUN/source/NAME, changed. */
static void touch_up(const char *out, const char *name)
{
    char path[4400], c;
    int fd;

    snprintf(path, sizeof(path), "%s/source/%s", out, name);
    fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &c, 1, 20), 1);
    c ^= 1;
    assert_int_equal(pwrite(fd, &c, 1, 20), 1);
    close(fd);
}

static int64_t verified(const char *out, const char *word)
{
    char *text = NULL;
    int64_t n = tr_verify_run(out, NULL, &text);

    if (n < 0 || !strstr(text, word))
        fail_msg("%d, not '%s': %s", (int)n, word, text ? text : tr_message());
    tr_free_text(text);
    return n;
}

/* What is kept beside the weights is verified, too; with another config.json nothing goes on. */
static void test_changed_beside(void **state)
{
    static const char text[] = "a file that travels with the model\n";
    struct tr_train_params p = own_job("beside");
    tr_run *run = NULL;

    (void)state;
    assert_int_equal(tr_file_write(scratch_path("beside-model/NOTES"), text, sizeof(text) - 1), 0);
    assert_int_equal(train_part(&p, 2), 0);
    assert_int_equal(verified(p.out, ""), 0);
    touch_up(p.out, "config.json");
    assert_true(tr_train_open(&run, &p) < 0);
    assert_non_null(strstr(tr_message(), "source/config.json"));
    assert_int_equal(verified(p.out, "source/config.json"), 1);
    touch_up(p.out, "config.json");
    touch_up(p.out, "NOTES");
    assert_int_equal(verified(p.out, "source/NOTES: damaged, or changed since the import"), 1);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
}

static char *inspected(const char *run)
{
    char *text = NULL;

    assert_int_equal(tr_inspect_path(run, 0, &text), 0);
    return text;
}

/* Changes one digit of the rate in run.yaml, or takes the last line away. */
static void change_options(const char *out, int last_line)
{
    char path[4400], *text, *at;
    size_t bytes;

    snprintf(path, sizeof(path), "%s/run.yaml", out);
    assert_int_equal(tr_file_read(path, 1 << 20, &text, &bytes), 0);
    at = strstr(text, "\nlr: ");
    assert_non_null(at);
    at = strpbrk(at, "123456789");
    *at ^= 1;
    if (last_line)
        bytes = (size_t)(strstr(text, "# checksum of all above") - text);
    assert_int_equal(tr_file_write(path, text, bytes), 0);
    tr_free(TR_MEM_TEXT, text);
}

/* The options of a run are believed as they were written alone: changed, they are refused by name,
 * unless it is said that the change is meant. */
static void test_changed_options(void **state)
{
    struct tr_train_params p = own_job("options"), read = {0};
    char path[4400];
    tr_run *run = NULL;

    (void)state;
    p.lr = 0.0625;
    snprintf(path, sizeof(path), "%s/run.yaml", p.out);
    assert_int_equal(train_part(&p, 2), 0);
    assert_int_equal(tr_run_file_check(path), 0);
    change_options(p.out, 0);
    assert_int_equal(tr_train_open(&run, &p), -EBADMSG);
    assert_non_null(strstr(tr_message(), "run.yaml: damaged, or changed by hand"));
    assert_int_equal(verified(p.out, "run.yaml: damaged"), 1);
    p.force = 1;
    assert_int_equal(train_part(&p, 1), 0);
    p.force = 0;
    assert_int_equal(verified(p.out, ""), 0); /* written anew */
    change_options(p.out, 1);
    assert_int_equal(tr_run_file_read(path, &read), 0);
    assert_true(read.lr != p.lr);
    tr_options_free(&read);
}

/* Without a plan.json that can be read the run goes on, and makes it anew. */
static void test_damaged_plan(void **state)
{
    struct tr_train_params p = own_job("plan");
    struct tr_plan_file plan;
    char path[4400], *text;

    (void)state;
    assert_int_equal(train_part(&p, 2), 0);
    snprintf(path, sizeof(path), "%s/plan.json", p.out);
    assert_int_equal(tr_file_write(path, "{\"store_uuid\": 7", 16), 0);
    assert_int_equal(verified(p.out, "plan.json"), 1);
    assert_int_equal(tr_fall_back_run(p.out, NULL), -EINVAL); /* no step is given up for that */
    assert_non_null(strstr(tr_message(), "is whole: it does not go back"));
    text = inspected(p.out);
    assert_non_null(strstr(text, "makes plan.json anew, which is damaged, then goes on"));
    tr_free_text(text);
    notices[0] = 0;
    p.log = take_notice;
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    assert_non_null(strstr(notices, "it is made anew, for the store "));
    assert_int_equal(tr_plan_file_read(p.out, &plan), 0);
    assert_int_equal(strlen(plan.store_uuid), 36);
    assert_int_equal(verified(p.out, ""), 0);
}

/* The step that is exported while commit record `record` is damaged. */
static int64_t step_without(const char *run, int record)
{
    char path[4500], out[4500];
    unsigned char was[64], is[64];
    int64_t step = -1;
    int fd;

    snprintf(path, sizeof(path), "%s/store/commit%d", run, record);
    snprintf(out, sizeof(out), "%s-without-%d", run, record);
    fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, was, sizeof(was), 0), sizeof(was));
    for (size_t i = 0; i < sizeof(was); i++)
        is[i] = (unsigned char)~was[i];
    assert_int_equal(pwrite(fd, is, sizeof(is), 0), sizeof(is));
    assert_int_equal(tr_export_run(&(struct tr_export_run_params){.run = run, .out = out}, &step),
                     0);
    assert_int_equal(pwrite(fd, was, sizeof(was), 0), sizeof(was));
    close(fd);
    return step;
}

static void test_damaged_commit(void **state)
{
    struct tr_train_params p = own_job("torn");
    struct tr_step_report last;
    int64_t first, second;

    (void)state;
    assert_int_equal(train(&p, &last), 0);
    first = step_without(p.out, 0); /* the records are written by turns: which is the newest? */
    second = step_without(p.out, 1);
    assert_int_equal(first > second ? first : second, 4);
    assert_int_equal(first > second ? second : first, 3);
}

/* Which of the two is that of the newest commit. */
static int newest_record(const char *run)
{
    uint64_t sequence[2];

    for (int i = 0; i < 2; i++) {
        char path[4500];
        int fd;

        snprintf(path, sizeof(path), "%s/store/commit%d", run, i);
        fd = open(path, O_RDONLY);
        assert_int_equal(pread(fd, &sequence[i], sizeof(sequence[i]), 16), sizeof(sequence[i]));
        close(fd);
    }
    return sequence[1] > sequence[0];
}

/* As a write of two blocks that is torn leaves it: the second one is the old one's, or garbage. */
static void tear(const char *run, int record)
{
    char path[4500], half[512];
    int fd;

    snprintf(path, sizeof(path), "%s/store/commit%d", run, record);
    memset(half, 0x5a, sizeof(half));
    fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, half, sizeof(half), 4096), sizeof(half));
    close(fd);
}

/* Keeps the first n lines of RUN/metrics.jsonl; the others go behind what is in RUN/NEXT. */
static void keep_lines(const char *run, int n, const char *next)
{
    char path[4400], line[1024];
    FILE *f, *to;
    long end = 0;

    snprintf(path, sizeof(path), "%s/metrics.jsonl", run);
    f = fopen(path, "r+");
    to = fopen(next, "a");
    for (int i = 0; fgets(line, sizeof(line), f); i++)
        if (i < n)
            end = ftell(f);
        else
            fputs(line, to);
    assert_int_equal(ftruncate(fileno(f), end), 0);
    fclose(f);
    fclose(to);
}

/* What is said of a record that cannot be read, and that the run goes on in any case. */
static void say_torn(struct tr_train_params p, const char *word, int64_t damaged)
{
    char *text = inspected(p.out), file[64];

    snprintf(file, sizeof(file), "store/commit%d", 0);
    if (!strstr(text, file))
        snprintf(file, sizeof(file), "store/commit%d", 1);
    if (!strstr(text, file) || !strstr(text, word))
        fail_msg("inspect does not say '%s': %s", word, text);
    tr_free_text(text);
    assert_int_equal(verified(p.out, word), damaged);
    assert_int_equal(verified(p.out, file), damaged);
    notices[0] = 0;
    p.log = take_notice;
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    if (!strstr(notices, file) || !strstr(notices, word))
        fail_msg("a resume does not say '%s': %s", word, notices);
}

/* The newest record is torn: by a crash, before anything was said to be durable; or on a disk that
 * has lost what was, which is damage. Either way it is named, and the step is done again. */
static void test_torn_commit(void **state)
{
    struct tr_train_params p = own_job("passed");
    int validated;

    (void)state;
    assert_int_equal(train_part(&p, 3), 0);
    tear(p.out, newest_record(p.out));
    say_torn(p, "was durable: step 3 was done by then; the store stands at step 2 again", 1);
    assert_int_equal(verified(p.out, ""), 0);
    assert_int_equal(metrics_lines(p.out, &validated), 4);
    assert_int_equal(tr_remove_tree(p.out), 0);
    assert_int_equal(train_part(&p, 3), 0);
    tear(p.out, newest_record(p.out));
    keep_lines(p.out, 2, "/dev/null");
    say_torn(p, "torn, as by a crash", 0);
    assert_int_equal(metrics_lines(p.out, &validated), 4);
}

/* Turns a bit of a file round. */
static void turn_bit(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    char c;

    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 4;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

/* Damage to the store of a run that has ended is no word on the model that it exported. */
static void test_damage_behind_export(void **state)
{
    struct tr_train_params p = own_job("ended");
    char path[4500];
    struct stat st;

    (void)state;
    assert_int_equal(train(&p, NULL), 0);
    for (int generation = 0; generation < 2; generation++) {
        snprintf(path, sizeof(path), "%s/store/gen%d", p.out, generation);
        assert_int_equal(stat(path, &st), 0);
        turn_bit(path, st.st_size / 4 * 3);
    }
    assert_int_equal(train(&p, NULL), -EBADMSG);
    assert_null(strstr(tr_message(), "exists"));
}

/* A damaged record is counted once, however it is known: by its bytes, by metrics.jsonl, or both;
 * and so is each further damage. */
static void test_counted_once(void **state)
{
    struct tr_train_params p = own_job("once");
    char path[4500];

    (void)state;
    assert_int_equal(train_part(&p, 3), 0);
    snprintf(path, sizeof(path), "%s/store/commit%d", p.out, newest_record(p.out));
    turn_bit(path, 4200);
    assert_int_equal(verified(p.out, "was durable: step 3"), 1);
    touch_up(p.out, "config.json");
    assert_int_equal(verified(p.out, "was durable: step 3"), 2);
    touch_up(p.out, "config.json");
    keep_lines(p.out, 2, "/dev/null");
    assert_int_equal(verified(p.out, "this commit record is damaged"), 1);
    turn_bit(path, 4200);
    assert_int_equal(verified(p.out, ""), 0);
}

/* Bytes of a record that are wrong, as no crash leaves them: known without a line to show for it.
 * Among the checksums they may be those of a torn write. */
static void test_damaged_record(void **state)
{
    struct tr_train_params p = own_job("bytes");
    unsigned char was[24], is[24];
    char path[4500];
    int fd;

    (void)state;
    assert_int_equal(train_part(&p, 3), 0);
    keep_lines(p.out, 2, "/dev/null");
    snprintf(path, sizeof(path), "%s/store/commit%d", p.out, newest_record(p.out));
    fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, was, sizeof(was), 60), sizeof(was));
    memset(is, 0xa7, sizeof(is));
    assert_int_equal(pwrite(fd, is, sizeof(is), 60), sizeof(is));
    assert_int_equal(verified(p.out, "commit record damaged"), 1);
    assert_int_equal(verified(p.out, "the store stands at the other one, of step 2"), 1);
    assert_int_equal(pwrite(fd, was, sizeof(was), 60), sizeof(was));
    assert_int_equal(pread(fd, was, sizeof(was), 4096 + 200), sizeof(was));
    assert_int_equal(pwrite(fd, is, sizeof(is), 4096 + 200), sizeof(is));
    assert_int_equal(verified(p.out, "torn, as by a crash"), 0);
    assert_int_equal(pwrite(fd, was, sizeof(was), 4096 + 200), sizeof(was));
    assert_int_equal(verified(p.out, ""), 0);
    close(fd);
}

/* Before the first step there is one record: damaged, it is named, by whoever meets it and as often
 * as it is met, and the import is not started again. */
static void test_damaged_only_record(void **state)
{
    struct tr_train_params p = own_job("only");
    char path[4500], *text = NULL;
    tr_run *run = NULL;

    (void)state;
    assert_int_equal(tr_train_open(&run, &p), 0);
    tr_train_close(run);
    snprintf(path, sizeof(path), "%s/store/commit1", p.out);
    turn_bit(path, 60);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tr_train_open(&run, &p), -EBADMSG);
        assert_non_null(strstr(tr_message(), "commit1: damaged, and the only commit record"));
    }
    assert_int_equal(tr_verify_run(p.out, NULL, &text), -EBADMSG);
    turn_bit(path, 60);
    assert_int_equal(verified(p.out, ""), 0);
    assert_int_equal(train(&p, NULL), 0);
}

/* As of a step that was killed after its first write: the smallest piece of block 1. */
static void begin_to_overwrite(const char *run)
{
    char path[4400], *zeros = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    const struct tr_layout *l;
    struct tr_store *s;
    uint32_t smallest = UINT32_MAX;

    snprintf(path, sizeof(path), "%s/store", run);
    assert_int_equal(tr_store_open(&s, path, TR_STORE_WRITE), 0);
    l = tr_store_layout(s);
    for (uint32_t i = 0; i < l->n_spans; i++)
        for (uint32_t k = 0; k < l->spans[i].n_pieces; k++) {
            uint32_t piece = l->spans[i].first_piece + k;

            if (!strcmp(l->segments[l->spans[i].segment].record, "block 1") &&
                (smallest == UINT32_MAX || l->pieces[piece].bytes < l->pieces[smallest].bytes))
                smallest = piece;
        }
    assert_int_equal(tr_store_write_piece(s, smallest, zeros), 0);
    tr_store_close(s);
    tr_free_pages(TR_MEM_IO, zeros, TR_PIECE_BYTES);
}

/* Inspect tells whether there is a step to fall back to, and of which it is. */
static void test_falls_back_to(void **state)
{
    struct tr_train_params p = own_job("commits");
    char *text;

    (void)state;
    assert_int_equal(train_part(&p, 3), 0);
    text = inspected(p.out);
    if (!strstr(text, "commits: 2\n  falls_back_to: 2\n  commit_before: of step 2; "))
        fail_msg("%s", text);
    assert_null(strstr(text, "; 0 small pieces"));
    tr_free_text(text);
    begin_to_overwrite(p.out);
    text = inspected(p.out);
    if (!strstr(text, "commits: 1\n  commit_before: was of step 2: of block 1 ("))
        fail_msg("%s", text);
    tr_free_text(text);
    assert_int_equal(verified(p.out, ""), 0); /* it is no damage */
    tear(p.out, newest_record(p.out) ^ 1);
    text = inspected(p.out);
    if (!strstr(text, "commits: 1\n  commit_before: none"))
        fail_msg("%s", text);
    tr_free_text(text);
}

/* A commit record that has been cut short is damaged like any other. */
static void test_short_record(void **state)
{
    struct tr_train_params p = own_job("short");
    char path[4500];
    uint64_t expected;

    (void)state;
    assert_int_equal(train(&p, NULL), 0);
    expected = file_hash(scratch_path("short-run/model/model.safetensors"));
    assert_int_equal(tr_remove_tree(p.out), 0);
    assert_int_equal(train_part(&p, 3), 0);
    snprintf(path, sizeof(path), "%s/store/commit%d", p.out, newest_record(p.out));
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(verified(p.out, path), 1);
    say_torn(p, "was durable: step 3", 1);
    assert_int_equal(verified(p.out, ""), 0);
    assert_true(file_hash(scratch_path("short-run/model/model.safetensors")) == expected);
}

/* Killed between the commit of step 3 and its line: that is there when the run is taken up again,
 * and nothing of a step that is not. */
static void test_lost_line(void **state)
{
    struct tr_train_params p = own_job("line");
    char next[4400];
    int validated;
    FILE *f;

    (void)state;
    snprintf(next, sizeof(next), "%s/metrics.jsonl.next", p.out);
    p.durability = TR_KEEP_CHECKPOINT;
    p.checkpoint_every = 2;
    assert_int_equal(train(&p, NULL), 0);
    assert_int_equal(access(next, F_OK), -1);
    keep_lines(p.out, 2, next);
    f = fopen(next, "a");
    fputs("{\"step\": 5, \"loss\": 1}\n{\"step\": 3", f); /* never durable; torn */
    fclose(f);
    assert_int_equal(train(&p, NULL), 0);
    assert_int_equal(metrics_lines(p.out, &validated), 4);
    assert_int_equal(access(next, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changed_beside), cmocka_unit_test(test_changed_options),
        cmocka_unit_test(test_damaged_plan),   cmocka_unit_test(test_damaged_commit),
        cmocka_unit_test(test_torn_commit),    cmocka_unit_test(test_short_record),
        cmocka_unit_test(test_lost_line),      cmocka_unit_test(test_damage_behind_export),
        cmocka_unit_test(test_counted_once),   cmocka_unit_test(test_damaged_record),
        cmocka_unit_test(test_falls_back_to),  cmocka_unit_test(test_damaged_only_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
