/* SPDX-License-Identifier: Apache-2.0
 *
 * Plans for machines that only exist as figures: what is chosen for them, what is said of it, and
 * what is refused. Nothing is run.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/base/file.h"
#include "src/run/run.h"
#include "tests/plan/foretold.h"
#include "tests/train/common.h"

static double real(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void close_to(double a, double b)
{
    if (a - b > 1e-6 * b || b - a > 1e-6 * b)
        fail_msg("%.12g is not %.12g", a, b);
}

/* A machine by name: more tokens hide what moves, a second drive does not slow it down. */
static json_t *ask(const char *arch, int64_t rows, int64_t drives)
{
    struct tr_train_params p = {
        .arch = arch, .dtype = TR_TYPE_BF16, .batch_size = rows, .clip_norm = -1};

    return foretold(&(struct tr_foretell_params){
        .train = &p, .machine = "rtx-4090", .drives = drives, .drive_life = {1e15}, .json = 1});
}

static void parts_sum(void **state)
{
    static const char *const spent[] = {"compute",  "drive",  "checksums", "copy_in",
                                        "copy_out", "commit", "updates"};
    json_t *one = ask("llama-13b", 1, 1), *two = ask("llama-13b", 1, 2);
    const json_t *p = json_object_get(one, "predicted"), *s = json_object_get(p, "seconds");
    double all = real(s, "all"), sum = 0;

    (void)state;
    told_table_sums(one);
    close_to(real(s, "forward") + real(s, "norm") + real(s, "update") + real(s, "commit"), all);
    for (size_t i = 0; i < sizeof(spent) / sizeof(spent[0]); i++)
        sum += real(json_object_get(p, "spent"), spent[i]);
    close_to(sum, all);
    close_to(real(p, "tokens") / all, real(p, "tokens_per_s"));
    close_to(real(p, "drive_life_steps") * real(p, "written_bytes"), 1e15);
    assert_true(real(json_object_get(json_object_get(two, "predicted"), "seconds"), "all") <=
                all + 1e-9);
    assert_true(all >= real(p, "arithmetic"));
    json_decref(one);
    json_decref(two);
}

static void refuses(const struct tr_foretell_params *p, const char *words)
{
    char *text = (char *)1;

    assert_true(tr_foretell(p, &text) < 0);
    assert_null(text);
    if (!strstr(tr_message(), words))
        fail_msg("'%s' is not in: %s", words, tr_message());
}

/* A step that the drives, and not the arithmetic, decide about. */
static struct tr_train_params much_io(enum tr_optimizer optimizer)
{
    return (struct tr_train_params){.arch = "llama-13b",
                                    .dtype = TR_TYPE_BF16,
                                    .batch_size = 1,
                                    .seq_len = 64,
                                    .optimizer = optimizer,
                                    .clip_norm = -1,
                                    .host_memory = 1ull << 30,
                                    .durability = TR_KEEP_STEP};
}

/* Two drives, one twice as fast: together they have all that moves, each its share, both are as
 * long at work and both are waited for; the first that is worn out ends it. */
static void two_drives(void **state)
{
    struct tr_train_params p = much_io(TR_OPT_DEFAULT);
    struct tr_foretell_params f = {.train = &p,
                                   .machine = "rtx-4090",
                                   .drive_read = {7e9, 3.5e9},
                                   .drive_write = {6e9, 3e9},
                                   .drive_life = {1e15, 1e14},
                                   .json = 1};
    json_t *o = foretold(&f), *all = json_object_get(o, "predicted");
    const json_t *list = json_object_get(all, "drives"), *a = json_array_get(list, 0),
                 *b = json_array_get(list, 1);
    double one_drive, seconds = real(json_object_get(all, "seconds"), "all");

    (void)state;
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_object_get(b, "folder")), "drive 2");
    assert_string_equal(json_string_value(json_object_get(all, "limited_by")), "the drives");
    close_to(real(a, "read_bytes") + real(b, "read_bytes"), real(all, "read_bytes"));
    close_to(real(a, "written_bytes") + real(b, "written_bytes"), real(all, "written_bytes"));
    assert_true(real(a, "written_bytes") > 1.9 * real(b, "written_bytes"));
    assert_true(real(a, "written_bytes") < 2.1 * real(b, "written_bytes"));
    assert_true(real(a, "busy") > 0.95 * seconds && real(b, "busy") > 0.95 * seconds);
    close_to(real(b, "life_steps"), 1e14 / real(b, "written_bytes"));
    close_to(real(all, "drive_life_steps"), real(b, "life_steps"));
    json_decref(o);
    f.drive_read[1] = f.drive_write[1] = f.drive_life[1] = 0; /* the faster one alone */
    o = foretold(&f);
    one_drive = real(json_object_get(json_object_get(o, "predicted"), "seconds"), "all");
    assert_true(one_drive > 1.4 * seconds && one_drive < 1.55 * seconds);
    json_decref(o);
    f.drive_life[1] = 1e14;
    refuses(&f, "--drive-life: 2 lives for 1 drives");
    p.momentum = 1.5;
    refuses(&f, "--momentum: 1.5 is too large");
}

/* More drives than one core can check the bytes of: it is the core that the step waits for. */
static void many_drives(void **state)
{
    struct tr_train_params p = much_io(TR_OPT_DEFAULT);
    struct tr_foretell_params f = {.train = &p, .machine = "rtx-4090", .drives = 8, .json = 1};
    json_t *o = foretold(&f), *all = json_object_get(o, "predicted");
    const json_t *drive = json_array_get(json_object_get(all, "drives"), 0);

    (void)state;
    assert_true(real(drive, "busy") < 0.5 * real(json_object_get(all, "seconds"), "all"));
    assert_string_equal(json_string_value(json_object_get(all, "limited_by")),
                        "checksums (one core)");
    json_decref(o);
}

/* With state more is written of what is read: a drive that writes slowly has less of that. */
static void slow_writer(void **state)
{
    struct tr_train_params p = much_io(TR_OPT_ADAMW);
    struct tr_foretell_params f = {.train = &p,
                                   .machine = "rtx-4090",
                                   .drive_read = {7e9, 7e9},
                                   .drive_write = {6e9, 1.5e9},
                                   .json = 1};
    json_t *o = foretold(&f);
    const json_t *list = json_object_get(json_object_get(o, "predicted"), "drives");
    double a = real(json_array_get(list, 0), "busy"), b = real(json_array_get(list, 1), "busy");

    (void)state;
    assert_true(fabs(a - b) < 0.1 * b);
    json_decref(o);
}

/* Seconds of a step; *parked: bytes on disk of gradients that wait. */
static double clipped(const char *machine, int64_t rows, enum tr_clip method, double *parked)
{
    struct tr_train_params p = {.arch = "llama-13b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = rows,
                                .optimizer = TR_OPT_LOMO,
                                .durability = TR_KEEP_STEP, /* else it is chosen for each way */
                                .clip_norm = method == TR_CLIP_GROUP ? -1 : 1,
                                .clip_method = method == TR_CLIP_GROUP ? TR_CLIP_AUTO : method};
    json_t *o = foretold(&(struct tr_foretell_params){.train = &p, .machine = machine, .json = 1});
    const json_t *predicted = json_object_get(o, "predicted");
    double all = real(json_object_get(predicted, "seconds"), "all");

    *parked = real(predicted, "parked_disk_bytes");
    json_decref(o);
    return all;
}

/* The faster of two ways with the same bits. Bound by arithmetic, the one without a second backward
 * costs hardly more than no clipping at all; bound by the drive, it is the other one; with room for
 * all gradients on the device, none goes to the disk. */
static void clip_is_chosen(void **state)
{
    static const int64_t rows[] = {1, 16};
    double parked, none, passes, deferred, chosen;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        none = clipped("rtx-3090", rows[i], TR_CLIP_GROUP, &parked);
        assert_true(parked == 0);
        passes = clipped("rtx-3090", rows[i], TR_CLIP_TWO_PASS, &parked);
        assert_true(parked == 0);
        deferred = clipped("rtx-3090", rows[i], TR_CLIP_DEFERRED, &parked);
        assert_true(parked > 8 * 12.8e9); /* two generations of f32, the embedding's apart */
        chosen = clipped("rtx-3090", rows[i], TR_CLIP_AUTO, &parked);
        close_to(chosen, deferred < passes ? deferred : passes);
        assert_int_equal(parked > 0, deferred < passes);
        assert_int_equal(deferred < passes, i);
        if (i)
            assert_true(deferred < 1.15 * none && passes > 1.5 * none);
    }
    clipped("h200", 1, TR_CLIP_AUTO, &parked);
    assert_true(parked == 0);
}

static double mean_seconds(const struct tr_train_params *p)
{
    json_t *o =
        foretold(&(struct tr_foretell_params){.train = p, .machine = "rtx-3090", .json = 1});
    double mean = real(json_object_get(json_object_get(o, "predicted"), "seconds"), "mean");

    json_decref(o);
    return mean;
}

/* Gradients that stay on the device may take the room of activations: what is chosen is as fast as
 * the better way by name (but for a thousandth: where one of them waits for nothing, the other is
 * not looked at), and more memory never makes it slower (but for 2 % that either way differs by
 * from budget to budget where every step is written). */
static void clip_makes_room(void **state)
{
    static const struct tiny shape = {"llama", 2560, 6912, 32, 20, 20, 128, 32000, 2048, ""};
    static const enum tr_keep keeps[] = {TR_KEEP_CHECKPOINT, TR_KEEP_STEP};
    const char *path = scratch_path("3b.json");

    (void)state;
    tiny_config(path, &shape);
    for (int k = 0; k < 4; k++) {
        struct tr_train_params p = {.arch = k & 2 ? "tinyllama-1.1b" : path,
                                    .dtype = TR_TYPE_BF16,
                                    .batch_size = 8,
                                    .seq_len = 2048,
                                    .optimizer = TR_OPT_LOMO,
                                    .durability = keeps[k & 1]};
        double before = INFINITY, chosen, best, named[2];

        for (uint64_t memory = k & 2 ? 10 : 19; memory < (k & 2 ? 13u : 24u); memory += 2) {
            p.device_memory = memory << 30;
            p.clip_method = TR_CLIP_AUTO;
            chosen = mean_seconds(&p);
            p.clip_method = TR_CLIP_TWO_PASS;
            named[0] = mean_seconds(&p);
            p.clip_method = TR_CLIP_DEFERRED;
            named[1] = mean_seconds(&p);
            best = fmin(named[0], named[1]);
            assert_true(chosen >= best * (1 - 1e-6) && chosen <= best * 1.001);
            assert_true(chosen < (k & 1 ? 1.02 : 1.01) * before);
            before = chosen;
        }
    }
}

static void says_of_passes(struct tr_train_params p, const char *clip, const char *sweeps)
{
    json_t *o =
        foretold(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090", .json = 1});

    assert_non_null(strstr(json_string_value(json_object_get(o, "clip")), clip));
    assert_non_null(strstr(json_string_value(json_object_get(o, "sweeps")), sweeps));
    assert_int_equal(!*json_string_value(json_object_get(o, "clip")), !*clip);
    assert_int_equal(!*json_string_value(json_object_get(o, "sweeps")), !*sweeps);
    json_decref(o);
}

/* How the norm comes about, and that AdaLomo goes through tables twice. */
static void passes_are_named(void **state)
{
    struct tr_train_params p = {.arch = "llama-7b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 1,
                                .seq_len = 256,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = -1};

    (void)state;
    says_of_passes(p, "", "");
    p.clip_norm = 1;
    p.clip_method = TR_CLIP_TWO_PASS;
    says_of_passes(p, "at most 1, by a second backward pass", "");
    p.clip_method = TR_CLIP_DEFERRED;
    says_of_passes(p, "deferred", "");
    p.optimizer = TR_OPT_ADALOMO;
    says_of_passes(p, "deferred", "wait in the store");
    p.clip_norm = -1;
    p.clip_method = TR_CLIP_AUTO;
    says_of_passes(p, "", "tables twice");
}

/* What the project is for: 65B on one 24 GB card with one drive, every step durable. */
static void headline(void **state)
{
    struct tr_train_params p = {.arch = "llama-65b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 16,
                                .seq_len = 2048,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = -1};
    json_t *o =
        foretold(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090", .json = 1});
    const json_t *all = json_object_get(o, "predicted");

    (void)state;
    assert_true(real(all, "tokens_per_s") >= 85);
    assert_true(told_number(all, "device_bytes") <= 24000000000);
    assert_string_equal(json_string_value(json_object_get(all, "limited_by")), "arithmetic");
    assert_true(real(all, "written_bytes") > 130e9); /* every record, each step */
    json_decref(o);
}

/* Where the step whose arithmetic hides the rest has no room on the device it is said, and asking
 * for it is refused: 65B has it on a card of this size, 405B, whose inputs of blocks take more, has
 * not. */
static void hides_if_it_fits(void **state)
{
    static const char *const arch[] = {"llama-65b", "llama-3.1-405b"};
    struct tr_train_params p = {
        .dtype = TR_TYPE_BF16, .seq_len = 2048, .optimizer = TR_OPT_LOMO, .clip_norm = -1};
    struct tr_foretell_params f = {.train = &p, .machine = "rtx-3090", .json = 1};

    (void)state;
    for (int i = 0; i < 2; i++) {
        const json_t *all;
        json_t *o;
        int fits;

        p.arch = arch[i];
        p.batch_size = 4;
        o = foretold(&f);
        all = json_object_get(o, "predicted");
        fits = json_is_true(json_object_get(all, "hides_from_tokens_fit"));
        assert_int_equal(fits, i == 0);
        p.batch_size = (int64_t)real(all, "hides_from_tokens") / p.seq_len + 1;
        json_decref(o);
        if (!fits) {
            refuses(&f, "the smallest that would do");
            continue;
        }
        o = foretold(&f);
        all = json_object_get(o, "predicted");
        assert_string_equal(json_string_value(json_object_get(all, "limited_by")), "arithmetic");
        json_decref(o);
    }
}

static void hides_never(const struct tr_foretell_params *f)
{
    json_t *o = foretold(f);

    assert_null(json_object_get(json_object_get(o, "predicted"), "hides_from_tokens"));
    json_decref(o);
}

/* Where inputs of blocks have no room, what is saved of them grows with the tokens as arithmetic
 * does: such a step is of another size than its own records would have it, whatever the size of the
 * one that is asked about; and there is none where the drive takes longer for them. */
static void saved_inputs_grow(void **state)
{
    struct tr_train_params p = {.arch = "llama-65b",
                                .dtype = TR_TYPE_BF16,
                                .seq_len = 2048,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = -1};
    struct tr_foretell_params f = {.train = &p,
                                   .machine = "rtx-3090",
                                   .json = 1,
                                   .machine_memory = 24ull << 30,
                                   .drive_read = {1.5e9},
                                   .drive_write = {0.5e9}};
    double from[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        json_t *o;

        p.batch_size = i ? 16 : 4;
        o = foretold(&f);
        from[i] = real(json_object_get(o, "predicted"), "hides_from_tokens");
        assert_false(json_is_true(
            json_object_get(json_object_get(o, "predicted"), "hides_from_tokens_fit")));
        json_decref(o);
    }
    assert_true(from[0] < 2 * from[1] && from[1] < 2 * from[0]);
    f.drive_write[0] = 0.1e9;
    hides_never(&f);
}

/* A shape whose parameters fit into a layout, and whose state does not: its pieces are too many. */
static void too_many_pieces(void **state)
{
    static const struct tiny shape = {"llama-tied", 65536, 262144, 170, 512,
                                      512,          128,   320,    128, ""};
    static const enum tr_optimizer with[] = {TR_OPT_ADAM_MINI, TR_OPT_SGD, TR_OPT_ADAMW};
    const char *path = scratch_path("huge.json");

    (void)state;
    tiny_config(path, &shape);
    for (int i = 0; i < 3; i++) {
        struct tr_train_params p = {
            .arch = path, .optimizer = with[i], .momentum = with[i] == TR_OPT_SGD ? 0.9 : 0};

        refuses(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090"}, "too large");
    }
}

static double arithmetic(const struct tr_foretell_params *f)
{
    json_t *o = foretold(f);
    double seconds = real(json_object_get(o, "predicted"), "arithmetic");

    json_decref(o);
    return seconds;
}

/* What adapters drop, and how they are updated, is paid for. */
static void adapters_are_priced(void **state)
{
    struct tr_train_params p = {.arch = "llama-7b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 4,
                                .seq_len = 512,
                                .lora_rank = 64,
                                .optimizer = TR_OPT_SGD,
                                .clip_norm = -1};
    struct tr_foretell_params f = {.train = &p, .machine = "rtx-3090", .json = 1};
    double plain = arithmetic(&f), dropping;

    (void)state;
    p.lora_dropout = 0.1;
    dropping = arithmetic(&f);
    assert_true(dropping > 1.001 * plain);
}

static void bad_machines(void **state)
{
    struct tr_train_params p = {.arch = "llama-7b"}, none = {0};
    struct tr_train_params task = {
        .arch = "llama-7b", .task = TR_TASK_RTE, .chat_template = "chatml"};
    struct tr_train_params still = {.arch = "llama-7b", .optimizer = TR_OPT_ADAMW, .momentum = 0.9};

    (void)state;
    refuses(&(struct tr_foretell_params){.train = NULL}, "train");
    refuses(&(struct tr_foretell_params){.train = &p,
                                         .machine = "rtx-3090",
                                         .machine_memory = TR_SHARE(80)},
            "--ram: is said in bytes");
    refuses(&(struct tr_foretell_params){.train = &task, .machine = "rtx-3090"},
            "--task and --template");
    refuses(&(struct tr_foretell_params){.train = &still, .machine = "rtx-3090"},
            "only --optimizer sgd");
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "rtx-9090"},
            "rtx-3090, rtx-4090, rtx-5090, h200");
    refuses(&(struct tr_foretell_params){.train = &p, .drives = 2}, "by name only");
    refuses(&(struct tr_foretell_params){.train = &none, .machine = "h200"},
            "--model or --arch is missing");
    p.model = "model";
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "h200"},
            "--model and --arch exclude each other");
    p.model = NULL;
    p.device = "nonsense";
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "h200"}, "--device nonsense: ");
    p.device = "cuda"; /* as a run.yaml says it: the machine's own is meant */
    p.device_memory = 25ull << 30;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090"}, "--device-memory: ");
    p.device_memory = 0;
    p.host_memory = 129ull << 30;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "rtx-3090"}, "--host-memory: ");
    p.host_memory = 0;
    p.device_memory = 64u << 20;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "h200"}, "for itself");
    p.device_memory = 1u << 30;
    refuses(&(struct tr_foretell_params){.train = &p, .machine = "h200"},
            "the smallest that would do");
}

/* The smallest host budget that a plan names does, and a page less does not. */
static void host_budget(void **state)
{
    static const struct {
        const char *machine;
        enum tr_optimizer optimizer;
        enum tr_update_on update_on;
    } cases[] = {{NULL, TR_OPT_LOMO, TR_UPDATE_AUTO},
                 {"rtx-3090", TR_OPT_LOMO, TR_UPDATE_AUTO},
                 {"rtx-3090", TR_OPT_ADAMW, TR_UPDATE_CPU}};
    struct tr_train_params p = {.arch = "llama-7b",
                                .dtype = TR_TYPE_BF16,
                                .batch_size = 1,
                                .seq_len = 256,
                                .clip_norm = -1,
                                .device = "cpu",
                                .device_memory = 8ull << 30};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tr_foretell_params f = {.train = &p, .machine = cases[i].machine, .json = 1};
        json_t *o;

        p.optimizer = cases[i].optimizer;
        p.update_on = cases[i].update_on;
        p.host_memory = 0;
        o = foretold(&f);
        p.host_memory = told_number(json_object_get(o, "predicted"), "least_host_bytes");
        json_decref(o);
        o = foretold(&f);
        assert_int_equal(told_number(json_object_get(o, "predicted"), "least_host_bytes"),
                         p.host_memory);
        json_decref(o);
        p.host_memory -= 4096;
        refuses(&f, "the smallest that would do");
        refuses(&f, "--host-memory");
    }
}

/* The bytes on disk of a run that is opened and left; it must have chosen this method. */
static uint64_t disk_of(const struct tr_train_params *p, enum tr_clip method)
{
    uint64_t bytes;
    tr_run *run;

    if (tr_train_open(&run, p) < 0)
        fail_msg("%s", tr_message());
    assert_int_equal(run->params.clip_method, method);
    bytes = run->foreseen.disk_bytes;
    tr_train_close(run);
    tr_remove_tree(p->out);
    return bytes;
}

/* The faster way needs room on the disk for the gradients that wait; without it the other one is
 * taken, and nothing is refused for which there is room. */
static void disk_decides(void **state)
{
    static const struct tiny shape = {"llama", 64, 96, 4, 4, 2, 16, 3000, 512, ""};
    char model[4352], data[4352], disk[4352], out[4400], size[64];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .out = out,
                                .steps = 1,
                                .batch_size = 4,
                                .seq_len = 500,
                                .optimizer = TR_OPT_LOMO,
                                .clip_norm = 1,
                                .export_model = TR_NO, /* it has no room on so small a disk */
                                .threads = 2};
    uint64_t deferred, passes;

    (void)state;
    snprintf(model, sizeof(model), "%s", scratch_path("model-disk"));
    snprintf(data, sizeof(data), "%s", scratch_path("data-disk.jsonl"));
    snprintf(disk, sizeof(disk), "%s", scratch_path("disk"));
    snprintf(out, sizeof(out), "%s/run", disk);
    tiny_model(model, &shape, TR_TYPE_BF16, 3);
    token_data(data, 4, 500, 500, shape.vocab);
    p.device_memory = smallest_budget(p) + (512 << 10); /* not all gradients have room in it */
    mkdir(disk, 0755);
    deferred = disk_of(&p, TR_CLIP_DEFERRED);
    p.clip_method = TR_CLIP_TWO_PASS;
    passes = disk_of(&p, TR_CLIP_TWO_PASS);
    p.clip_method = TR_CLIP_AUTO;
    assert_true(deferred > passes + passes / 2);
    snprintf(size, sizeof(size), "size=%llu", (unsigned long long)(passes + deferred) / 2);
    if (mount("tmpfs", disk, "tmpfs", 0, size) < 0) {
        print_message("skipped: a disk too small for one way, for want of the right to mount\n");
        skip();
    }
    disk_of(&p, TR_CLIP_TWO_PASS);
    p.clip_method = TR_CLIP_DEFERRED; /* asked for */
    assert_int_equal(train(&p, NULL), -ENOSPC);
    umount2(disk, MNT_DETACH); /* the ring lets go of its files later */
}

/* No step takes less than a drive of 7 and 6 GB/s does for its bytes. */
static void no_faster_than_drives(const struct tr_train_params *p, const char *machine)
{
    struct tr_foretell_params f = {.train = p, .machine = machine, .json = 1};
    json_t *o = foretold(&f);
    const json_t *all = json_object_get(o, "predicted");
    double seconds = real(json_object_get(all, "seconds"), "all");
    double least = real(all, "read_bytes") / 7e9 + real(all, "written_bytes") / 6e9;

    if (seconds < 0.9999 * least)
        fail_msg("%s, %s: %g s for what takes the drive %g s", p->arch, machine, seconds, least);
    json_decref(o);
}

/* What is written a little slower than it is computed is waited for all the same, however much of
 * it may wait in homes and slots, and however few loads are made ahead. */
static void backlogs_are_waited_for(void **state)
{
    static const char *const arch[] = {"tinyllama-1.1b", "llama-7b"};
    static const char *const machine[] = {"rtx-4090", "h200"};
    static const int64_t ahead[] = {0, 4};
    static const enum tr_optimizer with[] = {TR_OPT_ADALOMO, TR_OPT_ADAM_MINI};

    (void)state;
    for (int i = 0; i < 32; i++) {
        struct tr_train_params p = {.arch = arch[i & 1],
                                    .dtype = TR_TYPE_BF16,
                                    .batch_size = i & 16 ? 2 : 8,
                                    .seq_len = 2048,
                                    .optimizer = with[i >> 1 & 1],
                                    .clip_norm = -1,
                                    .prefetch = ahead[i >> 2 & 1],
                                    .durability = TR_KEEP_STEP};

        no_faster_than_drives(&p, machine[i >> 3 & 1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_sum),
        cmocka_unit_test(clip_is_chosen),
        cmocka_unit_test(disk_decides),
        cmocka_unit_test(bad_machines),
        cmocka_unit_test(two_drives),
        cmocka_unit_test(many_drives),
        cmocka_unit_test(slow_writer),
        cmocka_unit_test(host_budget),
        cmocka_unit_test(headline),
        cmocka_unit_test(passes_are_named),
        cmocka_unit_test(hides_if_it_fits),
        cmocka_unit_test(saved_inputs_grow),
        cmocka_unit_test(adapters_are_priced),
        cmocka_unit_test(too_many_pieces),
        cmocka_unit_test(backlogs_are_waited_for),
        cmocka_unit_test(clip_makes_room),
    };

    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    return cmocka_run_group_tests_name("machines", tests, NULL, NULL);
}
