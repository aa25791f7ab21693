/* SPDX-License-Identifier: Apache-2.0
 *
 * The option table: every row is well-formed, values are parsed strictly, a written file reads back
 * to the same options, and hostile files end in one error with file and line (invariant 9).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/options/options.h"

static char folder[64];

static const struct tr_option *find(const char *name)
{
    const struct tr_option *o = tr_option_find(tr_train_options, name);

    assert_non_null(o);
    return o;
}

static int set(struct tr_train_params *p, const char *name, const char *value)
{
    return tr_option_set(tr_train_options, find(name), p, value);
}

static const char *file_of(const char *text)
{
    static char path[80];
    FILE *f;

    snprintf(path, sizeof(path), "%s/options.yaml", folder);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static void rows_are_well_formed(void **state)
{
    (void)state;
    for (const struct tr_option *o = tr_train_options; o->name; o++) {
        assert_ptr_equal(tr_option_find(tr_train_options, o->name), o);
        assert_non_null(o->help);
        assert_true(o->offset < sizeof(struct tr_train_params));
        assert_int_equal(o->kind == TR_OPTION_CHOICE, o->choices != NULL);
        assert_int_equal(o->kind == TR_OPTION_SWITCH, o->metavar == NULL);
        if (o->rival)
            assert_string_equal(find(o->rival)->rival, o->name);
        for (const struct tr_option *other = tr_train_options; other < o; other++)
            assert_int_not_equal(other->offset, o->offset);
    }
}

static void sizes_are_read(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"24GiB", 24ull << 30},
                {"512MiB", 512ull << 20},
                {"1.5GiB", 3ull << 29},
                {"4096", 4096},
                {"7B", 7},
                {"2T", 2ull << 40},
                {"16K", 16 << 10}};
    static const char *const bad[] = {"",    "GiB",   "-1",   "0",   "1 GiB", "1gb",       "0x10",
                                      "nan", "1e300", "101%", "-5%", "0%",    "9999999TiB"};
    struct tr_train_params p = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_int_equal(set(&p, "device-memory", good[i].text), 0);
        assert_int_equal(p.device_memory, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(set(&p, "device-memory", bad[i]), -EINVAL);
    assert_int_equal(set(&p, "host-memory", "80%"), 0);
    assert_true(p.host_memory == TR_SHARE(80));
}

static void numbers_are_read_strictly(void **state)
{
    static const char *const bad[][2] = {
        {"lr", "0"},           {"lr", "-1"},
        {"lr", "nan"},         {"lr", "inf"},
        {"lr", "1x"},          {"lr", ""},
        {"lr", " 1"},          {"beta1", "1"},
        {"beta2", "1.5"},      {"beta1", "0"},
        {"steps", "0"},        {"steps", "1.5"},
        {"steps", "1e3"},      {"steps", "99999999999999999999"},
        {"seed", "-1"},        {"seed", "1x"},
        {"dtype", "f64"},      {"packing", "yes"},
        {"model", ""},         {"serial", "on"},
        {"eps", "-1e-8"},      {"warmup", "-1"},
        {"optimizer", "LOMO"},
    };
    struct tr_train_params p = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(set(&p, bad[i][0], bad[i][1]), -EINVAL);
        assert_true(strlen(tr_error_message()) > 0);
    }
    assert_int_equal(set(&p, "seed", "18446744073709551615"), 0);
    assert_true(p.seed == UINT64_MAX);
}

static void set_every_option(struct tr_train_params *p)
{
    for (const struct tr_option *o = tr_train_options; o->name; o++) {
        static const char *const values[] = {[TR_OPTION_TEXT] = "cpu",
                                             [TR_OPTION_PATH] = "/a \"b\"\\c: #\n\x01\xc3\xa4",
                                             [TR_OPTION_SIZE] = "4098KiB",
                                             [TR_OPTION_COUNT] = "9223372036854775807",
                                             [TR_OPTION_SEED] = "18446744073709551615",
                                             [TR_OPTION_REAL] = "0.1234567890123456",
                                             [TR_OPTION_SWITCH] = "yes"};
        const char *value = o->kind == TR_OPTION_CHOICE ? o->choices[1].name : values[o->kind];

        assert_int_equal(tr_option_set(tr_train_options, o, p, value), 0);
    }
}

/* What a text may not say the struct may not hold; zero is not set, whatever the option. */
static void values_are_held_to_the_same_rule(void **state)
{
    static const struct {
        const char *says;
        struct tr_train_params p;
    } bad[] = {
        {"--lr: -3 is too small: it must be above 0", {.lr = -3}},
        {"--lr: 'nan' is not a number", {.lr = __builtin_nan("")}},
        {"--epochs: 'inf' is not a number", {.epochs = __builtin_inf()}},
        {"--momentum: 1.5 is too large: it must be below 1", {.momentum = 1.5}},
        {"--beta2: 1 is too large", {.beta2 = 1}},
        {"--lora-dropout: 1 is too large", {.lora_dropout = 1}},
        {"--weight-decay: -1 is too small: it must be at least 0", {.weight_decay = -1}},
        {"--lora-lr: -1 is too small", {.lora_lr = TR_REAL_AUTO}},
        {"--steps: -5 is less than 1", {.steps = -5}},
        {"--eval-every: -9223372036854775808 is less than 1", {.eval_every = INT64_MIN}},
        {"--optimizer: '77' is none of: lomo, sgd, ", {.optimizer = (enum tr_optimizer)77}},
        {"--streaming: '3' is none of: ", {.streaming = (enum tr_streaming)3}},
        {"--io: '-1' is none of: ", {.io = (enum tr_engine) - 1}},
        {"--dtype: '4' is none of: ", {.dtype = TR_TYPE_8BIT}},
        {"--clip-method: '3' is none of: ", {.clip_method = TR_CLIP_GROUP}},
        {"--clip-method: '2147483647' is", {.clip_method = (enum tr_clip)INT32_MAX}},
        {"--host-memory: a share of", {.host_memory = TR_SHARE(0)}},
        {"--device-memory: a share of", {.device_memory = TR_SHARE(101)}},
        {"--store: the value is empty", {.store = ""}},
        {"--freeze: the value is not UTF-8", {.freeze = "caf\xe9"}},
        {"--data: 'caf\xe9/d' is not UTF-8", {.data = "caf\xe9/d"}},
    };
    static const struct tr_train_params good[] = {
        {.lr = TR_REAL_AUTO, .warmup = -2, .clip_norm = -1, .lora_dropout = -1},
        {.lr = 0.1, .momentum = 0.9, .steps = INT64_MAX, .seed = UINT64_MAX, .force = 2},
        {.clip_method = (enum tr_clip)(TR_CLIP_GROUP + 1), .streaming = TR_STREAMING_MATRICES},
        {.host_memory = TR_SHARE(100), .device_memory = 1, .dtype = TR_TYPE_F16, .store = "s"},
    };
    struct tr_train_params all = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(tr_options_check(&bad[i].p), -EINVAL);
        if (strncmp(tr_error_message(), bad[i].says, strlen(bad[i].says)) != 0)
            fail_msg("%s\nwanted %s", tr_error_message(), bad[i].says);
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        if (tr_options_check(&good[i]) < 0)
            fail_msg("%zu: %s", i, tr_error_message());
    assert_int_equal(tr_options_check(&all), 0);
    set_every_option(&all);
    assert_int_equal(tr_options_check(&all), 0);
    tr_options_free(&all);
}

/* run.yaml has paths from the root: what the current folder adds must be readable again, too. */
static void places_are_utf8(void **state)
{
    const struct tr_train_params p = {.out = "run"}, whole = {.out = "/run"};
    char place[] = "/tmp/tailrace-caf\xe9-XXXXXX", here[4096];

    (void)state;
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(tr_options_check(&p), 0);
    assert_non_null(mkdtemp(place));
    assert_int_equal(chdir(place), 0);
    assert_int_equal(tr_options_check(&p), -EINVAL);
    assert_non_null(strstr(tr_error_message(), "--out: "));
    assert_non_null(strstr(tr_error_message(), "is not UTF-8"));
    assert_int_equal(tr_options_check(&whole), 0);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(rmdir(place), 0);
}

static void zero_turns_off(void **state)
{
    struct tr_train_params p = {0};

    (void)state;
    assert_int_equal(set(&p, "clip-norm", "0"), 0);
    assert_int_equal(set(&p, "warmup", "0.0"), 0);
    assert_int_equal(set(&p, "weight-decay", "0"), 0);
    assert_true(p.clip_norm == -1 && p.warmup == -1 && p.weight_decay == 0);
}

static void rivals_replace_each_other(void **state)
{
    struct tr_train_params p = {0};

    (void)state;
    assert_int_equal(set(&p, "steps", "5"), 0);
    assert_int_equal(set(&p, "epochs", "2"), 0);
    assert_true(p.steps == 0 && p.epochs == 2);
    assert_int_equal(set(&p, "arch", "llama-7b"), 0);
    assert_int_equal(set(&p, "model", "m"), 0);
    assert_null(p.arch);
    tr_options_free(&p);
    assert_null(p.model);
}

static void written_options_read_back(void **state)
{
    struct tr_train_params p = {0}, q = {0};
    char path[80], names[1024];
    const struct tr_option_names all = {names, sizeof(names)};

    (void)state;
    set_every_option(&p);
    snprintf(path, sizeof(path), "%s/run.yaml", folder);
    assert_int_equal(tr_options_write(path, &p), 0);
    assert_int_equal(tr_options_read(path, &q), 0);
    assert_int_equal(tr_options_compare(&p, &q, TR_OPTION_FIXED, &all), 0);
    for (const struct tr_option *o = tr_train_options; o->name; o++)
        if (o->kind == TR_OPTION_PATH || o->kind == TR_OPTION_TEXT) {
            const char *a = *(const char **)((char *)&p + o->offset);
            const char *b = *(const char **)((char *)&q + o->offset);

            assert_int_equal(a != NULL, b != NULL);
            if (a)
                assert_string_equal(a, b);
        } else {
            assert_memory_equal((char *)&p + o->offset, (char *)&q + o->offset, 4);
        }
    tr_options_free(&p);
    tr_options_free(&q);
}

static void print_path(const char *path, char *line, size_t room)
{
    const struct tr_train_params p = {.data = path};
    FILE *f = fmemopen(line, room, "w");
    char *at;

    assert_non_null(f);
    tr_options_print(f, &p);
    fclose(f);
    at = strstr(line, "\ndata: ");
    assert_non_null(at);
    memmove(line, at + 1, strcspn(at + 1, "\n"));
    line[strcspn(at + 1, "\n")] = 0;
}

/* In whatever way it is said, and whether it is there or has gone. */
static void a_path_stays_the_same(void **state)
{
    static const char *const ways[] = {"m", "m/", "m//", "./m", ".//m", NULL};
    char here[4096], wanted[4200], line[16384];

    (void)state;
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(folder), 0);
    snprintf(wanted, sizeof(wanted), "data: \"%s/m\"", folder);
    for (int there = 1; there >= 0; there--) {
        assert_int_equal(there ? mkdir("m", 0755) : rmdir("m"), 0);
        for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
            char path[160];

            snprintf(path, sizeof(path), "%s/m/", folder);
            print_path(ways[i] ? ways[i] : path, line, sizeof(line));
            assert_string_equal(line, wanted);
        }
    }
    print_path("/no/such", line, sizeof(line));
    assert_string_equal(line, "data: \"/no/such\"");
    print_path("no/such", line, sizeof(line));
    snprintf(wanted, sizeof(wanted), "data: \"%s/no/such\"", folder);
    assert_string_equal(line, wanted);
    assert_int_equal(chdir(here), 0);
}

/* What is built in is no path, whatever the folder holds. */
static void a_name_stays_a_name(void **state)
{
    const struct tr_train_params p = {.arch = "llama-7b", .chat_template = "chatml"};
    struct tr_train_params q = {0};
    char here[4096], path[80];

    (void)state;
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(mkdir("chatml", 0755) | mkdir("llama-7b", 0755), 0);
    snprintf(path, sizeof(path), "%s/run.yaml", folder);
    assert_int_equal(tr_options_write(path, &p), 0);
    assert_int_equal(rmdir("chatml") | rmdir("llama-7b"), 0);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(tr_options_read(path, &q), 0);
    assert_string_equal(q.arch, p.arch);
    assert_string_equal(q.chat_template, p.chat_template);
    tr_options_free(&q);
}

static void clipping_off_reads_back(void **state)
{
    struct tr_train_params p = {.clip_norm = -1, .warmup = -1}, q = {0};
    char path[80];

    (void)state;
    snprintf(path, sizeof(path), "%s/run.yaml", folder);
    assert_int_equal(tr_options_write(path, &p), 0);
    assert_int_equal(tr_options_read(path, &q), 0);
    assert_true(q.clip_norm == -1 && q.warmup == -1);
}

static void only_fixed_options_are_compared(void **state)
{
    struct tr_train_params a = {.lr = 0.1, .threads = 1, .device_memory = 5, .steps = 3};
    struct tr_train_params b = {.lr = 0.2, .threads = 2, .device_memory = 9, .steps = 4, .seed = 1};
    char names[64], tiny[4];
    const struct tr_option_names all = {names, sizeof(names)}, few = {tiny, sizeof(tiny)};

    (void)state;
    assert_int_equal(tr_options_compare(&a, &b, TR_OPTION_FIXED, &all), 2);
    assert_string_equal(names, "lr, seed");
    assert_int_equal(tr_options_compare(&a, &b, TR_OPTION_FIXED, &few), 2);
    assert_int_equal(tr_options_compare(&a, &a, TR_OPTION_FIXED, &all), 0);
}

static void names_are_suggested(void **state)
{
    (void)state;
    assert_string_equal(tr_option_nearest(tr_train_options, "batch_size"), "batch-size");
    assert_string_equal(tr_option_nearest(tr_train_options, "optimiser"), "optimizer");
    assert_string_equal(tr_option_nearest(tr_train_options, "sedd"), "seed");
    assert_null(tr_option_nearest(tr_train_options, "cube-rank"));
    assert_null(tr_option_nearest(tr_train_options, "q"));
}

static void bad_files_name_the_line(void **state)
{
    static const char *const bad[][2] = {
        {"lr: 0.1\nbatch_size: 3\n", ":2: unknown option 'batch_size'; did you mean 'batch-size'?"},
        {"lr: 0.1\nlr: 0.2\n", ":2: 'lr' is given twice"},
        {"steps: 3\nepochs: 2\n", ":2: 'epochs' and 'steps' exclude each other"},
        {"lr: fast\n", ":1: lr: 'fast' is not a number"},
        {"lr:\n", ":1: lr: '' is not a number"},
        {"lr: \"x\\ny\\e[2J\"\n", ":1: lr: 'x\\ny\\x1b[2J' is not a number"},
        {"lr: \"\\x9b2J\\xa9\"\n", ":1: lr: '\\x9b2J\xc2\xa9' is not a number"},
        {"\nlr: [1, 2]\n", ":2: lr must be one plain value"},
        {"lr: &a 1\nwarmup: *a\n", ":2: warmup must be one plain value"},
        {"? [lr]\n: 1\n", ":1: a key must be one plain value"},
        {"- lr\n", ":1: 'key: value' lines expected"},
        {"lr: 1\n---\nlr: 2\n", ":2: the end (one document only) expected"},
        {"lr: \"1\\0\"\n", ":1: NUL character in lr"},
        {"lr: \"1\n", ":2: "},
        {"lr: !!int 1\n", ":1: lr must be one plain value"},
        {"\xff\xfe\xff", ":1: "},
        {"{{{{{{{{", ":1: "},
    };
    struct tr_train_params p = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *path = file_of(bad[i][0]), *message;

        assert_int_equal(tr_options_read(path, &p), -EINVAL);
        message = tr_error_message();
        assert_memory_equal(message, path, strlen(path));
        if (strncmp(message + strlen(path), bad[i][1], strlen(bad[i][1])) != 0)
            fail_msg("%s\nwanted %s", message, bad[i][1]);
        tr_options_free(&p);
    }
}

static void empty_files_set_nothing(void **state)
{
    struct tr_train_params p = {0}, zero = {0};

    (void)state;
    assert_int_equal(tr_options_read(file_of("# nothing\n"), &p), 0);
    assert_int_equal(tr_options_read(file_of(""), &p), 0);
    assert_memory_equal(&p, &zero, sizeof(p));
    assert_int_equal(tr_options_read("/nonexistent/options.yaml", &p), -ENOENT);
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tailrace-options-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char path[80];

    (void)state;
    snprintf(path, sizeof(path), "%s/options.yaml", folder);
    unlink(path);
    snprintf(path, sizeof(path), "%s/run.yaml", folder);
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_well_formed),
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(numbers_are_read_strictly),
        cmocka_unit_test(values_are_held_to_the_same_rule),
        cmocka_unit_test(places_are_utf8),
        cmocka_unit_test(zero_turns_off),
        cmocka_unit_test(rivals_replace_each_other),
        cmocka_unit_test(written_options_read_back),
        cmocka_unit_test(a_path_stays_the_same),
        cmocka_unit_test(a_name_stays_a_name),
        cmocka_unit_test(clipping_off_reads_back),
        cmocka_unit_test(only_fixed_options_are_compared),
        cmocka_unit_test(names_are_suggested),
        cmocka_unit_test(bad_files_name_the_line),
        cmocka_unit_test(empty_files_set_nothing),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
