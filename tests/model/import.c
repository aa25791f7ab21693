/* SPDX-License-Identifier: Apache-2.0
 *
 * Folders through the store and back: byte-identical, source untouched (invariant 7), everything
 * that is wrong refused in one line with nothing half-made left behind.
 */
#include "tests/model/run.h"
#include "tests/model/temp.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/entries.h"

static void there_and_back(const struct make_folder *f, int optimizer_state)
{
    const char *model = make_path(temp, "m");
    uint64_t print;

    make_write(f, model);
    print = make_print(model);
    if (run_import(
            temp,
            (struct tr_import_params){.model = model, .dtype = -1, .state = optimizer_state}) < 0 ||
        run_export(temp, "out", -1) < 0)
        fail_msg("%s", tr_error_message());
    assert_true(make_same(make_path(temp, "m"), make_path(temp, "out")));
    assert_false(make_exists(temp, "out/original") || make_exists(temp, "out/pytorch_model.bin"));
    assert_true(print == make_print(make_path(temp, "m")));
    make_clean(make_path(temp, "m"));
    make_clean(make_path(temp, "out"));
    run_forget(temp);
}

static void round_trips_are_byte_identical(void **state)
{
    static const struct make_shape more[] = {
        {"qwen2", 3, 24, 40, 3, 1, 8, 5000, 1, "BF16", NULL, 1},
        {"qwen3", 2, 24, 40, 3, 1, 16, 257, 0, "F16", NULL, 2},
        {"llama", 2, 64, 96, 4, 2, 16, 10000, 0, "BF16", "F32", 3}, /* norms kept in f32 */
    };
    struct make_folder f;

    (void)state;
    make_table(&f, &make_small);
    there_and_back(&f, 0);
    there_and_back(&f, 1);
    for (int i = 0; i < 3; i++) {
        make_table(&f, &more[i]);
        f.metadata =
            i == 1 ? "{\"format\":\"pt\",\"note\":\"\\\"quoted\\\" \xc3\xa9\"}" : f.metadata;
        there_and_back(&f, i == 2);
    }
}

/* The comparison must notice one bit in one tensor and a missing file. */
static void the_comparison_can_fail(void **state)
{
    struct make_folder f;
    int fd;

    (void)state;
    make_table(&f, &make_small);
    make_write(&f, make_path(temp, "m"));
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}), 0);
    assert_int_equal(run_export(temp, "out", -1), 0);
    assert_true(make_same(make_path(temp, "m"), make_path(temp, "out")));
    fd = open(make_path(temp, "out/model-00002-of-00003.safetensors"), O_WRONLY);
    assert_int_equal(pwrite(fd, "\x55", 1, 3000), 1);
    close(fd);
    assert_false(make_same(make_path(temp, "m"), make_path(temp, "out")));
    make_file(temp, "m/model-00002-of-00003.safetensors", "");
    make_file(temp, "out/model-00002-of-00003.safetensors", "");
    assert_true(make_same(make_path(temp, "m"), make_path(temp, "out")));
    unlink(make_path(temp, "out/tokenizer.json"));
    assert_false(make_same(make_path(temp, "m"), make_path(temp, "out")));
}

static void the_small_real_checkpoint(void **state)
{
    (void)state;
    if (access(TEST_SHARED "/checkpoints/tinystories-656k-hf/model.safetensors", R_OK) < 0) {
        print_message("skipped: no " TEST_SHARED "/checkpoints/tinystories-656k-hf\n");
        skip();
    }
    assert_int_equal(run_import(temp, (struct tr_import_params){.model = TEST_SHARED
                                                                "/checkpoints/tinystories-656k-hf",
                                                                .dtype = -1}),
                     0);
    assert_int_equal(run_export(temp, "out", -1), 0);
    assert_true(make_same(TEST_SHARED "/checkpoints/tinystories-656k-hf", make_path(temp, "out")));
}

static void tied_tables_keep_their_names(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;

    (void)state;
    s.tied = 1;
    make_table(&f, &s);
    there_and_back(&f, 0);
    strcpy(make_find(&f, "model.embed_tokens.weight")->name, "lm_head.weight");
    there_and_back(&f, 1); /* only the head's name */
}

/* Both names: the same bytes are one table, and are written twice again. */
static void tied_tables_under_both_names(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;
    const char *shard;
    int fd;

    (void)state;
    s.shards = 1;
    make_table(&f, &s);
    snprintf(strstr(f.config, "false,\n  \"torch"), 64, "true\n}\n");
    f.sparse = 1; /* all zeros: equal */
    there_and_back(&f, 0);
    make_write(&f, make_path(temp, "m"));
    shard = make_path(temp, "m/model.safetensors");
    fd = open(shard, O_WRONLY);
    assert_int_equal(pwrite(fd, "\x55", 1, 8000), 1);
    close(fd);
    assert_refused(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}),
        "ties model.embed_tokens.weight and lm_head.weight, but their values differ");
}

static void caches_of_old_versions_are_left_out(void **state)
{
    struct make_folder f, without;
    struct tr_import *i;
    struct tr_import_params p = {.dtype = -1};

    (void)state;
    make_table(&f, &make_small);
    make_table(&without, &make_small);
    make_add(&f, "model.layers.0.self_attn.rotary_emb.inv_freq", 0, 4);
    make_write(&f, make_path(temp, "m"));
    make_write(&without, make_path(temp, "w"));
    p.model = make_path(temp, "m");
    assert_int_equal(tr_import_open(&i, &p), 0);
    assert_non_null(strstr(tr_import_note(i), "inv_freq"));
    tr_import_close(i);
    assert_int_equal(run_import(temp, p), 0);
    assert_int_equal(run_export(temp, "out", -1), 0);
    assert_true(make_same(make_path(temp, "w"), make_path(temp, "out")));
}

/* f16 survives f32, on either side of the store. */
static void types_are_converted(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;

    (void)state;
    s.dtype = "F16";
    make_table(&f, &s);
    make_write(&f, make_path(temp, "m"));
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = TR_F32}),
        0);
    assert_int_equal(run_export(temp, "f32", -1), 0);
    assert_int_equal(run_export(temp, "f16", TR_F16), 0);
    assert_true(make_same(make_path(temp, "m"), make_path(temp, "f16")));
    run_forget(temp);
    assert_int_equal(run_import(temp, (struct tr_import_params){.model = make_path(temp, "f32"),
                                                                .dtype = TR_F16}),
                     0);
    assert_int_equal(run_export(temp, "again", -1), 0);
    for (int i = 1; i <= 3; i++) {
        char weights[64];

        snprintf(weights, sizeof(weights), "model-%05d-of-00003.safetensors", i);
        assert_int_equal(rename(make_path(make_path(temp, "again"), weights),
                                make_path(make_path(temp, "m"), weights)),
                         0);
    }
    assert_true(make_same(make_path(temp, "m"), make_path(temp, "f16"))); /* through f32 and back */
}

/* Of a value halfway to infinity even the weight alone would be infinite. */
static void masters_keep_all_bits(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;
    int fd;

    (void)state;
    s.shards = 1;
    for (enum tr_master k = TR_MASTER_SPLIT; k < TR_MASTER_KINDS; k++) {
        struct tr_import_params p = {
            .model = make_path(temp, "m"), .dtype = TR_BF16, .state = 1, .master = k};

        make_table(&f, &s);
        make_write(&f, make_path(temp, "m"));
        assert_int_equal(run_import(temp, p), 0);
        assert_int_equal(run_export(temp, "out", TR_F32), 0);
        assert_true(make_same(make_path(temp, "m"), make_path(temp, "out")));
        run_forget(temp);
        fd = open(make_path(temp, "m/model.safetensors"), O_WRONLY);
        assert_int_equal(pwrite(fd, "\xff\xff\x7f\x7f", 4, lseek(fd, 0, SEEK_END) - 4), 4);
        close(fd);
        assert_refused(run_import(temp, p),
                       "tensor model.norm.weight: a value is too large for bf16");
        assert_false(make_exists(temp, "r-store") || make_exists(temp, "r-source"));
        make_clean(make_path(temp, "m"));
        make_clean(make_path(temp, "out"));
    }
}

static void too_large_for_f16(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;
    int fd;

    (void)state;
    s.shards = 1;
    make_table(&f, &s);
    make_write(&f, make_path(temp, "m"));
    fd = open(make_path(temp, "m/model.safetensors"), O_WRONLY);
    assert_int_equal(pwrite(fd, "\0\0\x7f\x7f", 4, lseek(fd, 0, SEEK_END) - 4), 4); /* 3e38 */
    close(fd);
    assert_refused(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = TR_F16}),
        "tensor model.norm.weight: a value is too large for f16");
    assert_false(make_exists(temp, "r-store") || make_exists(temp, "r-source"));
    assert_int_equal(run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"),
                                                                .dtype = TR_BF16}),
                     0);
}

enum damage { DROP, RENAME, ROWS, FLAT, TYPE, I64 };

static const struct {
    enum damage what;
    const char *tensor, *words;
} damages[] = {
    {DROP, "model.layers.1.mlp.up_proj.weight",
     "tensor model.layers.1.mlp.up_proj.weight is missing"},
    {DROP, "model.embed_tokens.weight", "tensor model.embed_tokens.weight is missing"},
    {DROP, "lm_head.weight", "lm_head.weight is missing: is the model tied?"},
    {DROP, "model.norm.weight", "tensor model.norm.weight is missing"},
    {RENAME, "model.norm.weight", "tensor model.norm.weight2: not part of a LlamaForCausalLM"},
    {RENAME, "model.layers.0.mlp.up_proj.weight", "not part of a LlamaForCausalLM"},
    {ROWS, "model.embed_tokens.weight", "shape [601, 24], config.json makes it [600, 24]"},
    {ROWS, "model.layers.0.self_attn.k_proj.weight", "shape [9, 24], config.json makes it [8, 24]"},
    {ROWS, "model.norm.weight", "shape [25], config.json makes it [24]"},
    {FLAT, "model.layers.0.mlp.up_proj.weight", "shape [960], config.json makes it [40, 24]"},
    {TYPE, "model.layers.1.mlp.up_proj.weight",
     "dtype BF16, but model.layers.0.mlp.up_proj.weight is"},
    {I64, "model.norm.weight", "tensor model.norm.weight: dtype I64 is not supported"},
};

static void damage(struct make_folder *f, enum damage what, const char *name)
{
    struct make_tensor *t = make_find(f, name);

    if (what == DROP)
        make_drop(f, name);
    else if (what == RENAME)
        strcat(t->name, "2");
    else if (what == ROWS)
        t->shape[0]++;
    else if (what == FLAT)
        t->dims = 1, t->shape[0] *= t->shape[1];
    else
        strcpy(t->dtype, what == TYPE ? "BF16" : "I64");
}

static void folders_against_their_config(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        struct make_folder f;

        make_table(&f, &make_small);
        damage(&f, damages[i].what, damages[i].tensor);
        make_write(&f, make_path(temp, "m"));
        assert_refused(
            run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}),
            damages[i].words);
        assert_false(make_exists(temp, "r-store") || make_exists(temp, "r-source"));
        make_clean(make_path(temp, "m"));
    }
}

static void what_exists_is_not_touched(void **state)
{
    struct make_folder f;
    uint64_t print;

    (void)state;
    make_table(&f, &make_small);
    make_write(&f, make_path(temp, "m"));
    assert_int_equal(mkdir(make_path(temp, "r-store"), 0755), 0); /* empty: allowed */
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}), 0);
    assert_refused(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}),
        "r-source: exists and is not an empty folder");
    assert_int_equal(run_export(temp, "out", -1), 0);
    print = make_print(make_path(temp, "out"));
    assert_refused(run_export(temp, "out", -1), "out: exists and is not an empty folder");
    assert_true(print == make_print(make_path(temp, "out")));
    make_file(temp, "file", "x");
    assert_refused(run_export(temp, "file", -1), "file: exists and is not an empty folder");
    assert_refused(run_export(temp, "file/out", -1), "file/out");
    assert_refused(run_export(temp, "none/out", -1), "none/out: cannot create");
    assert_int_equal(mkdir(make_path(temp, "empty"), 0755), 0);
    assert_int_equal(symlink("empty", make_path(temp, "link")), 0);
    assert_int_equal(run_export(temp, "link", -1), 0); /* an empty folder behind a link */
    assert_true(make_same(make_path(temp, "m"), make_path(temp, "empty")));
}

/* The disk refuses the store's space before anything is written. */
static void files_cannot_grow(void **state)
{
    struct make_folder f;
    struct rlimit old, small;

    (void)state;
    make_table(&f, &make_small);
    make_write(&f, make_path(temp, "m"));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 100000;
    setrlimit(RLIMIT_FSIZE, &small);
    assert_refused(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}),
        "r-store/gen0: cannot allocate");
    setrlimit(RLIMIT_FSIZE, &old);
    assert_false(make_exists(temp, "r-store") || make_exists(temp, "r-source"));
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}), 0);
    small.rlim_cur = 20000;
    setrlimit(RLIMIT_FSIZE, &small);
    assert_refused(run_export(temp, "out", -1), "cannot write");
    setrlimit(RLIMIT_FSIZE, &old);
    assert_false(make_exists(temp, "out"));
    assert_int_equal(run_export(temp, "out", -1), 0); /* and nothing half-made is in the way */
}

static void the_disk_is_too_small(void **state)
{
    struct make_folder f;
    char small[128], store[160], keep[160];
    struct tr_import_params p = {.dtype = -1, .generations = 2, .store = store, .keep = keep};

    (void)state;
    make_table(&f, &make_small);
    make_write(&f, make_path(temp, "m"));
    snprintf(small, sizeof(small), "%s/disk", temp);
    snprintf(store, sizeof(store), "%s/store", small);
    snprintf(keep, sizeof(keep), "%s/source", small);
    mkdir(small, 0755);
    if (mount("none", small, "tmpfs", 0, "size=1m") < 0) {
        print_message("skipped: mounting a small disk needs more rights\n");
        skip();
    }
    p.model = make_path(temp, "m");
    if (tr_import(&p) != -ENOSPC || !strstr(tr_error_message(), "are free on that disk") ||
        make_exists(small, "store") || make_exists(small, "source")) {
        umount(small);
        fail_msg("%s", tr_error_message());
    }
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}), 0);
    if (run_export(temp, "disk/out", -1) != -ENOSPC || make_exists(small, "out")) {
        umount(small);
        fail_msg("%s", tr_error_message());
    }
    umount(small);
}

/* Between the check and the copy the source loses its end: nothing stays. */
static void a_source_that_shrinks(void **state)
{
    struct make_folder f;
    struct tr_import *i;
    char store[128], keep[128];
    struct tr_import_params p = {.dtype = -1, .generations = 1, .store = store, .keep = keep};

    (void)state;
    make_table(&f, &make_small);
    make_write(&f, make_path(temp, "m"));
    snprintf(store, sizeof(store), "%s/s", temp);
    snprintf(keep, sizeof(keep), "%s/k", temp);
    p.model = make_path(temp, "m");
    assert_int_equal(tr_import_open(&i, &p), 0);
    assert_int_equal(truncate(make_path(temp, "m/model-00003-of-00003.safetensors"), 3000), 0);
    assert_refused(tr_import_run(i), "model-00003-of-00003.safetensors: changed while it was read");
    tr_import_close(i);
    assert_false(make_exists(temp, "s") || make_exists(temp, "k"));
}

/* The last of it: the file is as long as it was, and somebody has been at it. */
static int write_over(void *arg, uint64_t done, uint64_t total)
{
    if (done == total)
        make_changed(arg);
    return 0;
}

static void a_source_that_is_written_over(void **state)
{
    struct make_folder f;
    struct tr_import_params p = {.dtype = -1, .progress = write_over};
    char path[160];

    (void)state;
    make_table(&f, &make_small);
    make_one_shard(&f);
    make_write(&f, make_path(temp, "m"));
    snprintf(path, sizeof(path), "%s/m/model.safetensors", temp);
    p.model = make_path(temp, "m");
    p.progress_arg = path;
    assert_refused(run_import(temp, p), "model.safetensors: changed while it was read");
    assert_false(make_exists(temp, "r-store") || make_exists(temp, "r-source"));
}

/* Half way somebody puts a file into each folder, and the import is stopped. */
static int join_in(void *arg, uint64_t done, uint64_t total)
{
    if (done < total / 2)
        return 0;
    for (const char *const *folder = arg; *folder; folder++)
        make_file(temp, make_path(*folder, "notes"), "mine");
    return 1;
}

/* Of an import that fails nothing is left; what others have put beside it is, and so are folders
 * that were there before. */
static void what_others_add_stays(void **state)
{
    static const char *const all[] = {"s1", "s2", "k", NULL}, *const none[] = {NULL};
    struct make_folder f;
    char store[256], keep[128];
    struct tr_import_params p = {
        .dtype = -1, .generations = 2, .store = store, .keep = keep, .progress = join_in};

    (void)state;
    make_table(&f, &make_small);
    make_write(&f, make_path(temp, "m"));
    assert_int_equal(mkdir(make_path(temp, "m/additional_chat_templates"), 0755), 0);
    make_file(temp, "m/additional_chat_templates/tool_use.jinja", "{{ tools }}");
    snprintf(store, sizeof(store), "%s/s1:%s/s2", temp, temp);
    snprintf(keep, sizeof(keep), "%s/k", temp);
    p.model = make_path(temp, "m");
    for (int there = 0; there < 2; there++) {
        for (int i = 0; there && all[i]; i++)
            assert_int_equal(mkdir(make_path(temp, all[i]), 0755), 0);
        p.progress_arg = (void *)none;
        assert_refused(tr_import(&p), "interrupted");
        for (int i = 0; all[i]; i++) {
            assert_int_equal(make_exists(temp, all[i]), there);
            assert_int_equal(there ? count_entries(make_path(temp, all[i])) : 0, 0);
        }
        p.progress_arg = (void *)all;
        assert_refused(tr_import(&p), "interrupted");
        for (int i = 0; all[i]; i++) {
            assert_true(make_exists(make_path(temp, all[i]), "notes"));
            assert_int_equal(count_entries(make_path(temp, all[i])), 1);
            make_clean(make_path(temp, all[i]));
        }
    }
}

static void move_behind_link(const char *folder, const char *name, const char *place)
{
    char from[256], to[256], link[256];

    snprintf(from, sizeof(from), "%s/%s", folder, name);
    snprintf(to, sizeof(to), "%s/%s/%s", folder, place, name);
    snprintf(link, sizeof(link), "%s/%s", place, name);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(symlink(link, from), 0);
}

static void import_linked(const char *model, const char *note)
{
    struct tr_import_params p = {.model = model, .dtype = -1};
    struct tr_import *i;

    assert_int_equal(tr_import_open(&i, &p), 0);
    if (!strstr(tr_import_note(i), note) || !*note != !*tr_import_note(i))
        fail_msg("not '%s': %s", note, tr_import_note(i));
    tr_import_close(i);
    make_clean(make_path(temp, "r-store"));
    make_clean(make_path(temp, "r-source"));
    assert_int_equal(run_import(temp, p), 0);
}

/* Caches of models are made of links; one that leads elsewhere would bring anything along. */
static void links_lead_to_models(void **state)
{
    char model[256], kept[256];
    struct make_folder f;

    (void)state;
    make_table(&f, &make_small);
    assert_int_equal(mkdir(make_path(temp, "snapshots"), 0755), 0);
    assert_int_equal(mkdir(make_path(temp, "blobs"), 0755), 0);
    snprintf(model, sizeof(model), "%s", make_path(temp, "snapshots/m"));
    snprintf(kept, sizeof(kept), "%s", make_path(temp, "r-source"));
    make_write(&f, model);
    make_file(model, "notes", "mine");
    assert_int_equal(symlink("notes", make_path(model, "more")), 0);
    import_linked(model, "");
    assert_true(make_exists(kept, "more"));
    move_behind_link(model, "notes", "../../blobs");
    import_linked(model, "");
    assert_true(make_exists(kept, "notes"));
    assert_int_equal(mkdir(make_path(temp, "other"), 0755), 0);
    assert_int_equal(unlink(make_path(model, "notes")), 0);
    assert_int_equal(unlink(make_path(model, "more")), 0);
    make_file(model, "notes", "mine");
    move_behind_link(model, "notes", "../../other");
    import_linked(model, "snapshots/m/notes: a link that leads out of the folder: left out");
    assert_false(make_exists(kept, "notes"));
    move_behind_link(model, "config.json", "../../other");
    import_linked(model, "");
    assert_true(make_exists(kept, "notes"));
    assert_int_equal(symlink("/proc/self/environ", make_path(model, "env")), 0);
    import_linked(model, "snapshots/m/env: a link that leads out of the folder: left out");
    assert_false(make_exists(kept, "env"));
}

/* An index that names `file` for all tensors, one that no file has besides, and no metadata. */
static void write_index(const struct make_folder *f, const char *model, const char *file)
{
    static char text[1 << 15];
    size_t n = (size_t)snprintf(text, sizeof(text),
                                "{\"metadata\": null, \"weight_map\": "
                                "{\"model.layers.0.self_attn.rotary_emb.inv_freq\": \"%s\"",
                                file);

    for (int i = 0; i < f->n; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, ", \"%s\": \"%s\"", f->t[i].name, file);
    snprintf(text + n, sizeof(text) - n, "}}");
    make_file(model, "model.safetensors.index.json", text);
}

/* Some write an index beside a single file, too, or nothing where its metadata would be. */
static void indices_of_others(void **state)
{
    struct tr_import_params p = {.dtype = -1};
    char model[256], weights[512];
    struct make_folder f;
    struct tr_import *i;

    (void)state;
    make_table(&f, &make_small);
    make_one_shard(&f);
    snprintf(model, sizeof(model), "%s", make_path(temp, "m"));
    p.model = model;
    make_write(&f, model);
    write_index(&f, model, "model.safetensors");
    assert_int_equal(run_import(temp, p), 0);
    assert_int_equal(run_export(temp, "out", -1), 0);
    assert_true(make_exists(temp, "out/model.safetensors"));
    assert_true(make_exists(temp, "out/model.safetensors.index.json"));
    write_index(&f, model, "model-00001-of-00001.safetensors");
    assert_refused(tr_import_open(&i, &p), "which one is meant?");
    snprintf(weights, sizeof(weights), "%s", make_path(model, "model.safetensors"));
    assert_int_equal(rename(weights, make_path(model, "model-00001-of-00001.safetensors")), 0);
    make_clean(make_path(temp, "r-store"));
    make_clean(make_path(temp, "r-source"));
    assert_int_equal(run_import(temp, p), 0);
    assert_int_equal(run_export(temp, "out2", -1), 0);
    assert_true(make_exists(temp, "out2/model-00001-of-00001.safetensors"));
}

/* An adapter beside a whole model is not trained with it: nor may half of it come out again. */
static void adapters_stay(void **state)
{
    char model[256];
    struct make_folder f;

    (void)state;
    make_table(&f, &make_small);
    snprintf(model, sizeof(model), "%s", make_path(temp, "m"));
    make_write(&f, model);
    make_file(model, "adapter_config.json", "{}");
    make_file(model, "adapter_model.bin", "x");
    import_linked(model, "m/adapter_config.json: the adapter is no part of the model");
    assert_false(make_exists(temp, "r-source/adapter_config.json"));
    assert_true(make_exists(temp, "r-source/tokenizer.json"));
}

/* What invariant 7 is seen by sees a byte, a time, a file and a folder. */
static void a_print_sees_changes(void **state)
{
    struct timespec times[2] = {{1, 0}, {1, 0}};
    char model[256];
    struct make_folder f;
    uint64_t print[5];

    (void)state;
    make_table(&f, &make_small);
    snprintf(model, sizeof(model), "%s", make_path(temp, "m"));
    make_write(&f, model);
    make_file(model, "notes", "a");
    assert_int_equal(utimensat(AT_FDCWD, make_path(model, "notes"), times, 0), 0);
    print[0] = make_print(model);
    assert_true(print[0] == make_print(model));
    make_file(model, "notes", "b");
    assert_int_equal(utimensat(AT_FDCWD, make_path(model, "notes"), times, 0), 0);
    print[1] = make_print(model);
    times[1].tv_nsec = 1;
    assert_int_equal(utimensat(AT_FDCWD, make_path(model, "notes"), times, 0), 0);
    print[2] = make_print(model);
    assert_int_equal(mkdir(make_path(model, "more"), 0755), 0);
    print[3] = make_print(model);
    make_file(model, "more/file", "");
    print[4] = make_print(model);
    for (int i = 0; i < 4; i++)
        assert_true(print[i] != print[i + 1]);
}

/* Of sub-folders the one with chat templates travels, and is watched; others stay behind. */
static void templates_travel(void **state)
{
    static const char at[] = "additional_chat_templates/tool_use.jinja";
    char model[256], source[256];
    struct make_folder f;
    json_t *sums;

    (void)state;
    make_table(&f, &make_small);
    snprintf(model, sizeof(model), "%s", make_path(temp, "m"));
    snprintf(source, sizeof(source), "%s", make_path(temp, "r-source"));
    make_write(&f, model);
    assert_int_equal(mkdir(make_path(model, "additional_chat_templates"), 0755), 0);
    assert_int_equal(mkdir(make_path(model, "other"), 0755), 0);
    make_file(model, at, "{{ tools }}");
    make_file(model, "other/file", "x");
    import_linked(model, "");
    assert_true(make_exists(source, at));
    assert_false(make_exists(source, "other"));
    sums = tr_keep_sums(source);
    assert_non_null(json_object_get(sums, at));
    json_decref(sums);
    assert_int_equal(run_export(temp, "out", -1), 0);
    assert_true(make_exists(temp, "out/additional_chat_templates/tool_use.jinja"));
}

static const char *rival; /* a store that somebody makes just before its folder is made; or NULL */
static struct tr_store *theirs;
static int in_use; /* and they are still at it */

/* In place of the C library's. */
int mkdir(const char *path, mode_t mode)
{
    const char *at = rival;
    char name[] = "t";
    struct tr_piece piece = {.name = name, .bytes = 4096};
    struct tr_span span = {.n_pieces = 1, .bytes = 4096};
    struct tr_segment segment = {name, name};
    struct tr_layout l = {&segment, &span, &piece, 1, 1, 1};
    _Alignas(4096) static char page[4096];

    if (at && !strcmp(path, at)) {
        rival = NULL;
        assert_int_equal(tr_store_create(&theirs, at, &l, 2), 0);
        assert_int_equal(tr_store_write_piece(theirs, 0, page), 0);
        assert_int_equal(tr_store_commit(theirs, "x", 1), 0);
        if (!in_use) {
            tr_store_close(theirs);
            theirs = NULL;
        }
    }
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

/* Between the look at the folders and their locks another store has come: it is not touched, be it
 * in use or not. */
static void a_store_that_comes_first(void **state)
{
    struct make_folder f;
    char store[128], second[128], list[260];
    uint64_t damaged;

    (void)state;
    make_table(&f, &make_small);
    make_write(&f, make_path(temp, "m"));
    snprintf(store, sizeof(store), "%s/s", temp);
    snprintf(second, sizeof(second), "%s/t", temp);
    snprintf(list, sizeof(list), "%s:%s", store, second);
    for (int i = 0; i < 4; i++) {
        struct tr_import_params p = {
            .dtype = -1, .generations = 2, .model = make_path(temp, "m"), .store = list};
        const char *where = i & 1 ? store : second;

        rival = where;
        in_use = i & 2;
        assert_refused(tr_import(&p), where);
        tr_store_close(theirs);
        assert_int_equal(tr_store_open(&theirs, where, TR_STORE_READ), 0);
        assert_int_equal(tr_store_verify(theirs, NULL, NULL, &damaged), 0);
        assert_int_equal(damaged, 0);
        tr_store_close(theirs);
        assert_false(make_exists(temp, i & 1 ? "t" : "s"));
        make_clean(where);
    }
}

/* Another run's folder of kept files does not describe this store. */
static void a_store_with_another_model(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;

    (void)state;
    make_table(&f, &make_small);
    make_write(&f, make_path(temp, "m"));
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}), 0);
    rename(make_path(temp, "r-source"), make_path(temp, "other"));
    make_clean(make_path(temp, "r-store"));
    s.layers = 3;
    make_table(&f, &s);
    make_write(&f, make_path(temp, "m3"));
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m3"), .dtype = -1}),
        0);
    make_clean(make_path(temp, "r-source"));
    rename(make_path(temp, "other"), make_path(temp, "r-source"));
    assert_refused(run_export(temp, "out", -1), "r-store: holds another model");
    assert_false(make_exists(temp, "out"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh_temp, clean_temp)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(round_trips_are_byte_identical),
        TEST(the_comparison_can_fail),
        TEST(the_small_real_checkpoint),
        TEST(tied_tables_keep_their_names),
        TEST(tied_tables_under_both_names),
        TEST(caches_of_old_versions_are_left_out),
        TEST(types_are_converted),
        TEST(masters_keep_all_bits),
        TEST(too_large_for_f16),
        TEST(folders_against_their_config),
        TEST(what_exists_is_not_touched),
        TEST(files_cannot_grow),
        TEST(the_disk_is_too_small),
        TEST(a_source_that_shrinks),
        TEST(a_source_that_is_written_over),
        TEST(what_others_add_stays),
        TEST(links_lead_to_models),
        TEST(indices_of_others),
        TEST(adapters_stay),
        TEST(templates_travel),
        TEST(a_print_sees_changes),
        TEST(a_store_that_comes_first),
        TEST(a_store_with_another_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
