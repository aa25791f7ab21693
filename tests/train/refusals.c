/* SPDX-License-Identifier: Apache-2.0
 *
 * Bad input, as a user meets it: each case spoils one thing of a sound training job and must give
 * one line that names the file and the place, and leave nothing half-made. The sound job itself is
 * run first, so that a refusal is known to come from what was spoilt.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "tests/train/common.h"

static const struct tiny shape = {"llama", 32, 48, 2, 4, 2, 8, 60, 64, ""};

struct job {
    char model[4352], data[4352], out[4352];
    struct tr_train_params p;
};

static void make_job(struct job *j)
{
    snprintf(j->model, sizeof(j->model), "%s", scratch_path("model"));
    snprintf(j->data, sizeof(j->data), "%s", scratch_path("data.jsonl"));
    snprintf(j->out, sizeof(j->out), "%s", scratch_path("out"));
    tiny_model(j->model, &shape, TR_TYPE_F32, 5);
    token_data(j->data, 4, 20, 64, shape.vocab);
    j->p = (struct tr_train_params){.model = j->model,
                                    .data = j->data,
                                    .out = j->out,
                                    .steps = 1,
                                    .batch_size = 2,
                                    .device_memory = 64 << 20,
                                    .threads = 1};
}

static void clear_job(const struct job *j)
{
    tr_remove_tree(j->model);
    tr_remove_tree(j->out);
    unlink(j->data);
}

/* Not inlined: gcc 12 takes the text for a dangling pointer otherwise. */
static __attribute__((noinline)) char *slurp(const char *path, size_t *n)
{
    char *text = NULL;

    assert_int_equal(tr_file_read(path, 1 << 24, &text, n), 0);
    return text;
}

static void spit(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static const char *weights(const struct job *j)
{
    static char path[4400];

    snprintf(path, sizeof(path), "%s/model.safetensors", j->model);
    return path;
}

/* Replaces the first `from` in a file by `to` of the same length. */
static void patch(const char *path, const char *from, const char *to)
{
    size_t n;
    char *data = slurp(path, &n), *at = memmem(data, n, from, strlen(from));

    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    spit(path, data, n);
    tr_free(TR_MEM_TEXT, data);
}

static void truncated(struct job *j)
{
    assert_int_equal(truncate(weights(j), 30000), 0);
}

static void overlapping(struct job *j)
{
    size_t n;
    char *data = slurp(weights(j), &n), *at = strstr(data + 8, "data_offsets");

    at = strstr(at + 1, "data_offsets"); /* the second tensor begins earlier than the first ends */
    at[strcspn(at, "123456789")]--;
    spit(weights(j), data, n);
    tr_free(TR_MEM_TEXT, data);
}

static void long_header(struct job *j)
{
    size_t n;
    char *data = slurp(weights(j), &n);

    data[3] = 5; /* 80 MB of header */
    spit(weights(j), data, n);
    tr_free(TR_MEM_TEXT, data);
}

static void missing_tensor(struct job *j)
{
    patch(weights(j), "layers.1.mlp.up_proj", "layers.1.mlp.xx_proj");
}

static void wrong_shape(struct job *j)
{
    size_t n;
    char *data = slurp(weights(j), &n), *at = strstr(data + 8, "[60,32]");

    assert_non_null(at);
    memcpy(at, "[32,60]", 7);
    spit(weights(j), data, n);
    tr_free(TR_MEM_TEXT, data);
}

static void pipe_config(struct job *j)
{
    char path[4400];

    snprintf(path, sizeof(path), "%s/config.json", j->model);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not block */
}

static void nan_config(struct job *j)
{
    char path[4400];
    struct tiny bad = shape;

    snprintf(path, sizeof(path), "%s/config.json", j->model);
    bad.extra = "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": NaN}";
    tiny_config(path, &bad);
}

static void unknown_architecture(struct job *j)
{
    char path[4400];
    size_t n;
    char *text;

    snprintf(path, sizeof(path), "%s/config.json", j->model);
    text = slurp(path, &n);
    memcpy(strstr(text, "LlamaForCausalLM"), "ZlamaForCausalLM", 16);
    spit(path, text, n);
    tr_free(TR_MEM_TEXT, text);
}

static void shard_outside(struct job *j)
{
    static const char index[] = "{\"metadata\": {}, \"weight_map\": {\"model.norm.weight\": "
                                "\"../model/model.safetensors\"}}";
    char path[4400];

    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", j->model);
    spit(path, index, strlen(index));
    snprintf(path, sizeof(path), "%s/kept.safetensors", j->model);
    rename(weights(j), path);
}

static void empty_data(struct job *j)
{
    spit(j->data, "", 0);
}

static void large_id(struct job *j)
{
    static const char line[] = "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, 60, 3]}\n";

    spit(j->data, line, strlen(line));
}

static void bad_json(struct job *j)
{
    static const char line[] = "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, 2\n";

    spit(j->data, line, strlen(line));
}

static void no_data(struct job *j)
{
    unlink(j->data);
}

static void unwritable(struct job *j)
{
    spit(j->out, "a file", 6);
    strcat(j->out, "/run");
}

static void occupied(struct job *j)
{
    char path[4400];

    assert_int_equal(mkdir(j->out, 0755), 0);
    snprintf(path, sizeof(path), "%s/thesis.txt", j->out);
    spit(path, "mine", 4);
}

static void small_device(struct job *j)
{
    j->p.device_memory = 300000;
}

static void small_host(struct job *j)
{
    j->p.host_memory = 1000;
}

static void large_device(struct job *j)
{
    j->p.device_memory = 1ull << 50;
}

static void large_host(struct job *j)
{
    j->p.host_memory = 1ull << 50;
}

static void long_rows(struct job *j)
{
    j->p.seq_len = 65;
}

static void inside_model(struct job *j)
{
    snprintf(j->out, sizeof(j->out), "%s/a/run", j->model);
}

static void store_inside_model(struct job *j)
{
    j->p.store = scratch_path("model/store");
}

static void huge_batch(struct job *j)
{
    j->p.batch_size = INT64_MAX;
}

static void huge_threads(struct job *j)
{
    j->p.threads = INT64_C(1) << 32;
}

static void negative_rate(struct job *j)
{
    j->p.lr = -3;
}

static void unknown_streaming(struct job *j)
{
    j->p.streaming = (enum tr_streaming)7;
}

static void two_sources(struct job *j)
{
    j->p.arch = "llama-7b";
}

static void hanging_link(struct job *j)
{
    assert_int_equal(symlink("nowhere", j->out), 0);
}

static const struct {
    const char *name;
    void (*spoil)(struct job *j);
    const char *says[2];
    int keeps_out; /* the folder was the user's before */
} cases[] = {
    {"truncated file", truncated, {"model.safetensors", "truncated"}},
    {"overlapping offsets", overlapping, {"model.safetensors", "data_offsets"}},
    {"header past the end", long_header, {"model.safetensors", "header"}},
    {"missing tensor", missing_tensor, {"model.safetensors", "layers.1.mlp."}},
    {"wrong shape", wrong_shape, {"model.safetensors", "[32"}},
    {"pipe for config", pipe_config, {"config.json", "not a regular file"}},
    {"NaN in config", nan_config, {"config.json", "line 1"}},
    {"unknown architecture", unknown_architecture, {"config.json", "ZlamaForCausalLM"}},
    {"shard outside the folder", shard_outside, {"index.json", "model.norm.weight"}},
    {"empty data", empty_data, {"data.jsonl", ""}},
    {"token id past the vocabulary", large_id, {"data.jsonl:2", "60"}},
    {"broken JSON", bad_json, {"data.jsonl:2", "JSON"}},
    {"no data file", no_data, {"data.jsonl", "No such file"}},
    {"unwritable output", unwritable, {"out/run", "Not a directory"}, 1},
    {"existing output folder", occupied, {"out", "not empty"}, 1},
    {"device budget too small", small_device, {"smallest", "--device-memory"}},
    {"host budget too small", small_host, {"host memory", "--host-memory"}},
    {"device budget past the machine", large_device, {"--device-memory: 1125899906842624", ""}},
    {"host budget past the machine", large_host, {"--host-memory: 1125899906842624", ""}},
    {"rows longer than the model's positions", long_rows, {"--seq-len 65", "64"}},
    {"output in the model folder", inside_model, {"--out", "never written"}},
    {"store in the model folder", store_inside_model, {"--store", "never written"}},
    {"rows past counting", huge_batch, {"--batch-size 9223372036854775807", "too many"}},
    {"threads past counting", huge_threads, {"--threads: 4294967296 is more than 1024", ""}},
    {"a rate below zero", negative_rate, {"--lr: -3", "above 0"}},
    {"streaming by a number that names none", unknown_streaming, {"--streaming: '7'", "matrices"}},
    {"a model and a shape", two_sources, {"--model and --arch", "exclude"}},
    {"output that is a link to nothing", hanging_link, {"out", "run.yaml"}, 1},
};

/* Returns what is wrong with the refusal of case i; says it. */
static int check(size_t i)
{
    struct job j;
    int r, wrong = 0;

    make_job(&j);
    cases[i].spoil(&j);
    r = train(&j.p, NULL);
    wrong += r >= 0 || strchr(tr_message(), '\n') != NULL;
    for (int k = 0; k < 2; k++)
        wrong += !strstr(tr_message(), cases[i].says[k]);
    if (!cases[i].keeps_out && access(j.out, F_OK) == 0)
        wrong++;
    if (wrong)
        print_error("%s: %s; %s is %s\n", cases[i].name, r < 0 ? tr_message() : "not refused",
                    j.out, access(j.out, F_OK) == 0 ? "there" : "not there");
    clear_job(&j);
    unlink(scratch_path("out"));
    return wrong;
}

static void test_refusals(void **state)
{
    struct job j;
    int wrong = 0;

    (void)state;
    make_job(&j);
    if (train(&j.p, NULL) < 0)
        fail_msg("the sound job: %s", tr_message());
    clear_job(&j);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        wrong += check(i);
    assert_int_equal(wrong, 0);
}

static void test_small_disk(void **state)
{
    const char *disk = scratch_path("disk");
    struct job j;

    (void)state;
    make_job(&j);
    mkdir(disk, 0755);
    if (mount("tmpfs", disk, "tmpfs", 0, "size=256k") < 0) {
        print_message("skipped: a disk too small, for want of the right to mount\n");
        skip();
    }
    snprintf(j.out, sizeof(j.out), "%s/run", disk);
    assert_int_equal(train(&j.p, NULL), -ENOSPC);
    assert_non_null(strstr(tr_message(), "too small"));
    assert_int_equal(tr_folder_is_empty(disk), 1);
    umount(disk);
    clear_job(&j);
}

/* Another process (here: another object) may not use the same run. */
static void test_lock(void **state)
{
    tr_run *run, *other;
    struct job j;

    (void)state;
    make_job(&j);
    if (tr_train_open(&run, &j.p) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(tr_train_open(&other, &j.p), -EBUSY);
    assert_non_null(strstr(tr_message(), "out"));
    tr_train_close(run);
    clear_job(&j);
}

/* A run is continued only with the options that make it what it is. */
static void test_other_options(void **state)
{
    struct job j;

    (void)state;
    make_job(&j);
    j.p.steps = 3;
    assert_int_equal(train_part(&j.p, 1), 0);
    j.p.batch_size = 3;
    assert_int_equal(train(&j.p, NULL), -EINVAL);
    assert_non_null(strstr(tr_message(), "batch-size"));
    j.p.batch_size = 2;
    j.p.threads = 2; /* may differ */
    assert_int_equal(train(&j.p, NULL), 0);
    clear_job(&j);
}

/* The last id becomes another: no count tells. */
static void change_data(const struct job *j, int by)
{
    size_t bytes;
    char *text = slurp(j->data, &bytes), *last = strrchr(text, ']');

    last[-1] = (char)((last[-1] - '0' + by) % 10 + '0');
    spit(j->data, text, bytes);
    tr_free(TR_MEM_TEXT, text);
}

/* Nor with other data under the same path, unless by force; of a run from before it was written
 * down what they were, nobody knows. */
static void test_other_data(void **state)
{
    struct job j;

    (void)state;
    make_job(&j);
    j.p.steps = 7;
    j.p.log = take_notice;
    assert_int_equal(train_part(&j.p, 1), 0);
    change_data(&j, 1);
    assert_int_equal(train_part(&j.p, 1), -EINVAL);
    assert_non_null(strstr(tr_message(), "data.jsonl"));
    assert_non_null(strstr(tr_message(), "--force"));
    change_data(&j, 9); /* as they were */
    assert_int_equal(train_part(&j.p, 1), 0);
    change_data(&j, 2);
    notices[0] = 0;
    j.p.force = 1;
    assert_int_equal(train_part(&j.p, 1), 0);
    assert_non_null(strstr(notices, "goes on with other data than before"));
    j.p.force = 0;
    assert_int_equal(train_part(&j.p, 1), 0);
    change_data(&j, 3);
    assert_int_equal(unlink(scratch_path("out/plan.json")), 0);
    assert_int_equal(train_part(&j.p, 1), 0);
    change_data(&j, 4);
    assert_int_equal(train_part(&j.p, 1), -EINVAL);
    clear_job(&j);
}

/* The key that names the store, spoilt in a paper of the run; again: as it was. */
static void spoil_uuid(const char *run, const char *paper)
{
    char path[4500], *text, *at;
    size_t bytes;

    snprintf(path, sizeof(path), "%s/%s", run, paper);
    assert_int_equal(tr_file_read(path, 1 << 20, &text, &bytes), 0);
    at = strstr(text, "tore_uuid");
    assert_non_null(at);
    at[-1] ^= 's' ^ 'S';
    assert_int_equal(tr_file_write(path, text, bytes), 0);
    tr_free(TR_MEM_TEXT, text);
}

static void write_word(const char *run, const char *paper, const char *word)
{
    char path[4500];

    snprintf(path, sizeof(path), "%s/%s", run, paper);
    assert_int_equal(tr_file_write(path, word, strlen(word)), 0);
}

static void refuses_store(struct job *j, const char *theirs, const char *paper)
{
    struct tr_export_run_params e = {.run = j->out, .store = theirs, .out = scratch_path("never")};

    j->p.store = theirs;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(i ? train(&j->p, NULL) : tr_export_run(&e, NULL), -EINVAL);
        if (!strstr(tr_message(), "another run") || !strstr(tr_message(), paper))
            fail_msg("not refused for what %s says: %s", paper, tr_message());
    }
    j->p.store = NULL;
    assert_int_equal(tr_folder_is_empty(e.out), -ENOENT);
}

/* Either of two papers is enough to know the store of another run of the same model; and to know
 * the run's own. */
static void test_papers_name_the_store(void **state)
{
    static const char kept[] = "source/tailrace-shards.json";
    char other[4352], theirs[4400];
    struct job j;

    (void)state;
    make_job(&j);
    snprintf(other, sizeof(other), "%s", scratch_path("other"));
    snprintf(theirs, sizeof(theirs), "%s/store", other);
    j.p.steps = 3;
    assert_int_equal(train_part(&j.p, 1), 0);
    j.p.out = other;
    assert_int_equal(train_part(&j.p, 1), 0);
    j.p.out = j.out;
    write_word(j.out, "plan.json", "{damaged");
    refuses_store(&j, theirs, kept);
    assert_int_equal(train_part(&j.p, 1), 0); /* plan.json is made anew */
    spoil_uuid(j.out, kept);                  /* as in a run from before it was there */
    refuses_store(&j, theirs, "plan.json");
    spoil_uuid(j.out, kept);
    spoil_uuid(j.out, "plan.json");
    refuses_store(&j, theirs, kept);
    assert_int_equal(train(&j.p, NULL), 0);
    tr_remove_tree(other);
    clear_job(&j);
}

/* Sizes that only look alike: the store of another run is not this one's. */
static void test_other_store(void **state)
{
    char other[4352], mine[4400], theirs[4400];
    struct tr_export_run_params e = {.out = scratch_path("exported")};
    struct job j;

    (void)state;
    make_job(&j);
    snprintf(other, sizeof(other), "%s", scratch_path("other"));
    snprintf(theirs, sizeof(theirs), "%s/store", other);
    snprintf(mine, sizeof(mine), "%s/store", j.out);
    assert_int_equal(train(&j.p, NULL), 0);
    j.p.out = other;
    assert_int_equal(train(&j.p, NULL), 0);
    j.p.out = j.out;
    j.p.store = theirs;
    assert_int_equal(train(&j.p, NULL), -EINVAL);
    assert_non_null(strstr(tr_message(), "another run"));
    e.run = j.out;
    e.store = theirs;
    assert_int_equal(tr_export_run(&e, NULL), -EINVAL);
    e.store = mine;
    assert_int_equal(tr_export_run(&e, NULL), 0);
    tr_remove_tree(other);
    tr_remove_tree(scratch_path("exported"));
    clear_job(&j);
}

/* A store that was named by a relative path is found again from any folder. */
static void test_relative_store(void **state)
{
    char *here = getcwd(NULL, 0), *text = NULL;
    struct job j;

    (void)state;
    make_job(&j);
    assert_int_equal(chdir(scratch()), 0);
    j.p.store = "apart";
    assert_int_equal(train(&j.p, NULL), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(tr_verify_run(j.out, NULL, &text), 0);
    tr_free_text(text);
    tr_remove_tree(scratch_path("apart"));
    clear_job(&j);
    assert_int_equal(chdir(here), 0);
    free(here);
}

/* The command that began a run, --store left out, goes on where the store was last. */
static void test_store_is_found(void **state)
{
    char first[4352], second[4352];
    struct tr_step_report last;
    struct job j;

    (void)state;
    make_job(&j);
    snprintf(first, sizeof(first), "%s", scratch_path("first"));
    snprintf(second, sizeof(second), "%s", scratch_path("second"));
    j.p.steps = 4;
    j.p.store = first;
    assert_int_equal(train_part(&j.p, 1), 0);
    j.p.store = NULL;
    assert_int_equal(train_part(&j.p, 1), 0);
    assert_int_equal(tr_folder_has(j.out, "store"), 0);
    assert_int_equal(rename(first, second), 0);
    assert_int_equal(train_part(&j.p, 1), -ENOENT);
    assert_non_null(strstr(tr_message(), first));
    j.p.store = second;
    assert_int_equal(train_part(&j.p, 1), 0);
    j.p.store = NULL;
    assert_int_equal(train(&j.p, &last), 0);
    assert_int_equal(last.step, 4);
    tr_remove_tree(second);
    clear_job(&j);
}

/* A prompt is continued up to the model's last position; what leaves no room is refused, never
 * read past the tables. */
static void test_prompts(void **state)
{
    struct tiny small = {"llama", 32, 48, 2, 4, 2, 8, 300, 64, ""};
    char text[4352], tokenizer[4352], model[4352], prompt[512], *out;
    struct tr_generate_params p = {.model = model, .tokenizer = tokenizer, .prompt = "a b"};

    (void)state;
    tiny_tokenizer(text, tokenizer);
    snprintf(model, sizeof(model), "%s", scratch_path("prompted"));
    tiny_model(model, &small, TR_TYPE_F32, 5);
    p.device_memory = 64 << 20;
    p.max_tokens = INT64_MAX;
    if (tr_generate_text(&p, &out) < 0)
        fail_msg("%s", tr_message());
    tr_free_text(out);
    memset(prompt, 'z', sizeof(prompt));
    prompt[sizeof(prompt) - 1] = 0;
    p.prompt = prompt;
    p.max_tokens = 1;
    assert_int_equal(tr_generate_text(&p, &out), -E2BIG);
    assert_non_null(strstr(tr_message(), "64 positions"));
    tr_remove_tree(model);
    tr_remove_tree(tokenizer);
    unlink(text);
}

/* A run whose store has gone is not started over. */
static void test_missing_store(void **state)
{
    char store[4400], moved[4400];
    struct job j;

    (void)state;
    make_job(&j);
    j.p.steps = 3;
    assert_int_equal(train_part(&j.p, 1), 0);
    snprintf(store, sizeof(store), "%s/store", j.out);
    snprintf(moved, sizeof(moved), "%s/moved", j.out);
    assert_int_equal(rename(store, moved), 0);
    assert_int_equal(train(&j.p, NULL), -ENOENT);
    assert_non_null(strstr(tr_message(), "--store"));
    assert_int_equal(rename(moved, store), 0);
    assert_int_equal(train(&j.p, NULL), 0);
    clear_job(&j);
}

/* A finished run may be taken further; its first model stays, the new one lies beside it. */
static void test_further(void **state)
{
    struct job j;
    uint64_t first;

    (void)state;
    make_job(&j);
    j.p.steps = 2;
    j.p.schedule = TR_LR_CONSTANT; /* linear ends at 0: its last step changes nothing */
    assert_int_equal(train(&j.p, NULL), 0);
    first = file_hash(scratch_path("out/model/model.safetensors"));
    j.p.steps = 1;
    assert_int_equal(train(&j.p, NULL), -EINVAL);
    j.p.steps = 3; /* the refusal has changed nothing */
    assert_int_equal(train(&j.p, NULL), 0);
    assert_true(file_hash(scratch_path("out/model/model.safetensors")) == first);
    assert_true(file_hash(scratch_path("out/model-3/model.safetensors")) != first);
    clear_job(&j);
}

/* Trained further without an export; the same command exports the new model, once, and names it. */
static void test_late_export(void **state)
{
    struct job j;
    uint64_t first, second;

    (void)state;
    make_job(&j);
    j.p.steps = 2;
    j.p.schedule = TR_LR_CONSTANT;
    j.p.log = take_notice;
    assert_int_equal(train(&j.p, NULL), 0);
    first = file_hash(scratch_path("out/model/model.safetensors"));
    j.p.steps = 3;
    j.p.export_model = TR_NO;
    assert_int_equal(train(&j.p, NULL), 0);
    assert_int_equal(tr_folder_is_empty(scratch_path("out/model-3")), -ENOENT);
    j.p.export_model = TR_AUTO;
    for (int i = 0; i < 2; i++) {
        notices[0] = 0;
        assert_int_equal(train(&j.p, NULL), 0);
        assert_non_null(strstr(notices, i ? "out/model-3 (as it was)\n" : "out/model-3\n"));
    }
    second = file_hash(scratch_path("out/model-3/model.safetensors"));
    assert_true(file_hash(scratch_path("out/model/model.safetensors")) == first);
    assert_true(second != first);
    assert_int_equal(tr_remove_tree(scratch_path("out/model")), 0);
    assert_int_equal(train(&j.p, NULL), 0);
    assert_true(file_hash(scratch_path("out/model/model.safetensors")) == second);
    clear_job(&j);
}

/* Of a run whose plan.json does not say it, what is in OUT/model when it goes on is of no step
 * that is still to come. */
static void test_export_of_old_run(void **state)
{
    struct job j;

    (void)state;
    make_job(&j);
    j.p.steps = 2;
    j.p.log = take_notice;
    assert_int_equal(train(&j.p, NULL), 0);
    assert_int_equal(unlink(scratch_path("out/plan.json")), 0);
    notices[0] = 0;
    assert_int_equal(train(&j.p, NULL), 0);
    assert_non_null(strstr(notices, "out/model (as it was)\n"));
    assert_int_equal(unlink(scratch_path("out/plan.json")), 0);
    j.p.steps = 3;
    j.p.export_model = TR_NO;
    assert_int_equal(train(&j.p, NULL), 0);
    j.p.export_model = TR_AUTO;
    assert_int_equal(train(&j.p, NULL), 0);
    assert_int_equal(tr_folder_is_empty(scratch_path("out/model-3")), 0);
    clear_job(&j);
}

/* A loss that is not finite is never applied; a few in a row end the run. */
static void test_not_finite(void **state)
{
    struct tr_step_report report;
    struct job j;
    tr_run *run;
    float *w, nan = __builtin_nanf("");
    size_t n;
    int r, steps = 0;

    (void)state;
    make_job(&j);
    j.p.steps = 9;
    j.p.optimizer = TR_OPT_SGD;
    w = read_tensor(j.model, "model.norm.weight", &n);
    {
        size_t bytes;
        char *data = slurp(weights(&j), &bytes);
        char *at = memmem(data, bytes, w, n * sizeof(*w)); /* a row of ones is the first norm's */

        assert_non_null(at);
        memcpy(at, &nan, sizeof(nan));
        spit(weights(&j), data, bytes);
        tr_free(TR_MEM_TEXT, data);
    }
    free(w);
    if (tr_train_open(&run, &j.p) < 0)
        fail_msg("%s", tr_message());
    while ((r = tr_train_step(run, &report)) == 1) {
        assert_int_equal(report.skipped, 1);
        steps++;
    }
    assert_int_equal(r, -EDOM);
    assert_int_equal(steps, 2);
    assert_non_null(strstr(tr_message(), "3 steps in a row"));
    tr_train_close(run);
    clear_job(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_small_disk),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_other_options),
        cmocka_unit_test(test_missing_store),
        cmocka_unit_test(test_further),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_papers_name_the_store),
        cmocka_unit_test(test_other_store),
        cmocka_unit_test(test_relative_store),
        cmocka_unit_test(test_store_is_found),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_other_data),
        cmocka_unit_test(test_late_export),
        cmocka_unit_test(test_export_of_old_run),
    };

    return cmocka_run_group_tests_name("refusals", tests, NULL, NULL);
}
