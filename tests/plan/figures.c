/* SPDX-License-Identifier: Apache-2.0
 *
 * Figures of machines: costs of ops from their own fields, the fit, and the file, which may hold
 * anything (invariant 9).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/plan/figures.h"
#include "tests/json_blocks.h"

static char folder[] = "/var/tmp/tailrace-figures-XXXXXX";

static void equal(double a, double b)
{
    if (a - b > 1e-6 * b || b - a > 1e-6 * b)
        fail_msg("%.12g is not %.12g", a, b);
}

static struct tr_figures named(const char *name, const struct tr_figures_changes *c)
{
    struct tr_figures f;

    if (tr_figures_named(name, c, &f) < 0)
        fail_msg("%s", tr_error_message());
    return f;
}

static void named_machines(void **state)
{
    struct tr_figures_changes none = {0},
                              changed = {.drive_read = {3e9}, .drives = 2, .pcie = 1e10};
    struct tr_figures f = named("RTX-3090", &none);
    /* 2 x 1000^3 FLOP at 80 % of 71 TFLOPS, and a launch */
    struct tr_op op = {
        .kind = TR_OP_MATMUL,
        .matmul = {.n = 1000, .m = 1000, .k = 1000, .w_dtype = TR_BF16, .in_dtype = TR_BF16}};

    (void)state;
    equal(tr_figures_seconds(&f, &op), 2e9 / (71e12 * 0.8) + 5e-6);
    equal(f.read, 7e9);
    equal(f.mixed, 2 / (1 / 7e9 + 1 / 6e9));
    f = named("h200", &changed);
    equal(f.read, 6e9);
    equal(f.write, 12e9);
    equal(f.in, 1e10);
    assert_int_equal(f.n_drives, 2);
    equal(f.drive[1].rates.alone.read, 3e9);
    equal(f.drive[1].rates.alone.mixed, 4e9);
    assert_int_equal(tr_figures_named("h2000", &none, &f), -ENOENT);
}

/* Each drive by itself, where speeds are said one by one. */
static void named_drives(void **state)
{
    struct tr_figures_changes two = {.drive_read = {7e9, 3.5e9}};
    struct tr_figures f = named("rtx-3090", &two);

    (void)state;
    assert_int_equal(f.n_drives, 2);
    assert_string_equal(f.drive[1].folder, "drive 2");
    equal(f.drive[0].rates.alone.read, 7e9);
    equal(f.drive[1].rates.alone.read, 3.5e9);
    equal(f.drive[1].rates.alone.write, 6e9);
    equal(f.read, 10.5e9);
    equal(f.flush, 0.005);
    equal(tr_drive_speed(&f.drive[1].rates, 2, 1), 3 / (2 / 3.5e9 + 1 / 6e9));
    equal(tr_drive_speed(&f.drive[1].rates, 0, 7), 6e9);
    two.drives = 3;
    assert_int_equal(tr_figures_named("rtx-3090", &two, &f), -EINVAL);
    assert_non_null(strstr(tr_error_message(), "--drive-read: 2 speeds for 3 drives"));
    two.drives = 0;
    two.drive_write[0] = two.drive_write[1] = two.drive_write[2] = 1e9;
    assert_int_equal(tr_figures_named("rtx-3090", &two, &f), -EINVAL);
    two = (struct tr_figures_changes){.drives = TR_STORE_FOLDERS + 1};
    assert_int_equal(tr_figures_named("rtx-3090", &two, &f), -EINVAL);
}

/* With a speed that is none a step would take no time, or no number of seconds. */
static void no_speeds(void **state)
{
    static const double none[] = {-1, 1e-300, 1e5, 1e16, 1e300};
    struct tr_figures f;

    (void)state;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        struct tr_figures_changes c[3] = {
            {.pcie = none[i]}, {.drive_read = {7e9, none[i]}}, {.drive_write = {none[i]}}};

        for (int k = 0; k < 3; k++) {
            assert_int_equal(tr_figures_named("rtx-3090", &c[k], &f), -EINVAL);
            assert_non_null(strstr(tr_error_message(), "is no speed"));
        }
    }
}

/* Pairs of a query and its keys: inside documents, inside the window. */
static void attention_pairs(void **state)
{
    int32_t docs[] = {0, 3, 10};
    struct tr_op op = {
        .kind = TR_OP_ATTENTION,
        .attention = {.n = 10, .heads = 2, .kv_heads = 1, .head_dim = 4, .docs = {2, docs}}};
    struct tr_op_cost c = tr_op_cost_of(&op);

    (void)state;
    equal(c.q.of[TR_TERM_WORK], (6 + 28) * 8);
    op.attention.window = 2; /* 1 + 2 + 2, 1 + 6 x 2 */
    c = tr_op_cost_of(&op);
    equal(c.q.of[TR_TERM_WORK], (5 + 13) * 8);
    equal(c.q.of[TR_TERM_ROWS], 10 * (16 + 8));
}

/* Every kind of op has a cost, and state makes an update dearer. */
static void every_op_costs(void **state)
{
    struct tr_figures_changes none = {0};
    struct tr_figures f = named("rtx-4090", &none);
    struct tr_op op = {.kind = TR_OP_SGD, .update = {.n = 1000000, .dtype = TR_BF16}};
    double sgd = tr_figures_seconds(&f, &op);

    (void)state;
    op.kind = TR_OP_ADAMW;
    assert_true(tr_figures_seconds(&f, &op) > 2 * sgd);
    op.kind = TR_OP_MOMENTUM;
    assert_true(tr_figures_seconds(&f, &op) > sgd);
    for (int k = 0; k < TR_OP_KINDS; k++)
        assert_true(tr_figures_seconds(&f, &(struct tr_op){.kind = (enum tr_op_kind)k}) > 0);
}

static void fit_finds_factors(void **state)
{
    static const double truth[TR_TERMS] = {3e-5, 7e-12, 0, 4e-10};
    struct tr_sample s[12];
    double found[TR_TERMS];

    (void)state;
    for (int i = 0; i < 12; i++) {
        s[i].q.of[0] = 1 + i % 2;
        s[i].q.of[1] = 1e6 * (i + 1) * (i + 1);
        s[i].q.of[2] = 1e4 * (12 - i);
        s[i].q.of[3] = 1e5 * (i * 7 % 5 + 1);
        s[i].seconds = 0;
        for (int t = 0; t < TR_TERMS; t++)
            s[i].seconds += truth[t] * s[i].q.of[t];
    }
    tr_figures_fit(s, 12, found);
    for (int t = 0; t < TR_TERMS; t++)
        assert_true(found[t] >= 0);
    equal(found[0], truth[0]);
    equal(found[1], truth[1]);
    equal(found[3], truth[3]);
    for (int i = 0; i < 12; i++) /* what falls with the work can only be explained by a negative */
        s[i].seconds = 1 / s[i].q.of[1];
    tr_figures_fit(s, 12, found);
    for (int t = 0; t < TR_TERMS; t++)
        assert_true(found[t] >= 0);
}

/* ---- the file ---- */

static char *written(size_t *bytes)
{
    struct tr_figures_changes none = {0};
    struct tr_figures f = named("rtx-5090", &none);
    char path[80], *text;

    snprintf(path, sizeof(path), "%s/machine.json", folder);
    assert_int_equal(tr_figures_write(path, &f), 0);
    assert_int_equal(tr_file_read(path, 1 << 20, &text, bytes), 0);
    return text;
}

static void file_reads_back(void **state)
{
    struct tr_figures_changes none = {0};
    struct tr_figures f = named("rtx-5090", &none), g;
    size_t bytes;
    char *text = written(&bytes);

    (void)state;
    assert_int_equal(tr_figures_parse(text, bytes, "f", &g), 0);
    assert_string_equal(f.name, g.name);
    assert_true(f.cuda == g.cuda && f.device_bytes == g.device_bytes && f.read == g.read);
    assert_memory_equal(f.cost, g.cost, sizeof(f.cost));
    tr_free(TR_MEM_TEXT, text);
}

/* Two drives come back as they were; so does a file from before there were any in it. */
static void drives_read_back(void **state)
{
    struct tr_figures_changes two = {.drive_read = {7e9, 3.5e9}};
    struct tr_figures f = named("rtx-3090", &two), g;
    char path[80];

    (void)state;
    snprintf(f.drive[0].folder, sizeof(f.drive[0].folder), "/fast \"disk\"/a:b");
    f.drive[1].rates = (struct tr_drive_rates){{1e9, 2e9, 3e9}, {4e9, 5e9, 6e9}, 0.25};
    snprintf(path, sizeof(path), "%s/drives.json", folder);
    assert_int_equal(tr_figures_write(path, &f), 0);
    assert_int_equal(tr_figures_read(path, &g), 0);
    assert_int_equal(g.n_drives, 2);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(g.drive[i].folder, f.drive[i].folder);
        assert_memory_equal(&g.drive[i].rates, &f.drive[i].rates, sizeof(g.drive[i].rates));
    }
    f.n_drives = 0;
    assert_int_equal(tr_figures_write(path, &f), 0);
    assert_int_equal(tr_figures_read(path, &g), 0);
    assert_int_equal(g.n_drives, 0);
    equal(g.read, f.read);
}

static char *two_drives(void *arg)
{
    struct tr_figures_changes two = {.drive_read = {7e9, 3.5e9}};
    struct tr_figures f = named("rtx-3090", &two);
    char path[80];

    (void)arg;
    snprintf(path, sizeof(path), "%s/whole.json", folder);
    unlink(path);
    return blocks_file(tr_figures_write(path, &f), path);
}

static void a_file_is_whole(void **state)
{
    (void)state;
    assert_true(blocks_whole(two_drives, NULL, 200) > 190);
}

/* A file from before state in fewer bits was measured: it costs what its bytes do. With some of
 * these rows and not the others it is read as well; each is a row of its own. Nor did it say how
 * long grains are. */
static void older_file(void **state)
{
    static const char *const rows[] = {"adamw", "momentum", "adam_mini"};
    struct tr_op op = {.kind = TR_OP_MOMENTUM,
                       .update = {.n = 1000000, .dtype = TR_BF16, .state_dtype = TR_8BIT}};
    struct tr_figures f = {.name = ""}, g;
    char path[80], *text, key[64];
    json_t *o, *costs;
    size_t bytes;

    (void)state;
    tr_free(TR_MEM_TEXT, written(&bytes));
    snprintf(path, sizeof(path), "%s/machine.json", folder);
    assert_int_equal(tr_figures_read(path, &f), 0);
    for (int row = TR_COST_ADAMW_BF16; row < TR_COST_ROWS; row++)
        f.cost[row][TR_WIDTH_16][TR_TERM_WORK] *= 3;
    f.update_8bit = f.update / 5;
    f.update_bf16 = f.update / 2;
    f.grain_tokens = 3 * TR_GRAIN_CUDA;
    assert_int_equal(tr_figures_write(path, &f), 0);
    assert_int_equal(tr_figures_read(path, &g), 0);
    assert_int_equal(g.grain_tokens, f.grain_tokens);
    equal(g.update_8bit, f.update_8bit);
    equal(tr_figures_seconds(&g, &op), tr_figures_seconds(&f, &op));
    o = json_load_file(path, 0, NULL);
    costs = json_object_get(o, "costs");
    assert_int_equal(json_object_del(o, "update_8bit"), 0);
    assert_int_equal(json_object_del(o, "grain_tokens"), 0);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 4; k++) {
            snprintf(key, sizeof(key), "%s_%s %s", rows[i], k & 1 ? "8bit" : "bf16",
                     k & 2 ? "32" : "16");
            assert_int_equal(json_object_del(costs, key), 0);
        }
    text = json_dumps(o, 0);
    assert_int_equal(tr_figures_parse(text, strlen(text), "f", &g), 0);
    equal(g.update_8bit, f.update);
    equal(g.update_bf16, f.update / 2);
    assert_int_equal(g.grain_tokens, TR_GRAIN_CUDA);
    for (int row = TR_COST_ADAMW_BF16; row < TR_COST_ROWS; row++)
        assert_memory_equal(g.cost[row], f.cost[TR_COST_ADAMW + (row - TR_COST_ADAMW_BF16) % 3],
                            sizeof(g.cost[row]));
    assert_true(2 * tr_figures_seconds(&g, &op) < tr_figures_seconds(&f, &op));
    free(text);
    json_decref(o);
}

/* Replaces the first `from` of a good file; must be refused with the place. */
static void refused(const char *from, const char *to, const char *words)
{
    size_t bytes;
    char *text = written(&bytes), *at = strstr(text, from), *bad;
    struct tr_figures f;
    int n;

    assert_non_null(at);
    bad = malloc(bytes + strlen(to) + 1);
    assert_non_null(bad);
    n = sprintf(bad, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    if (tr_figures_parse(bad, (size_t)n, "machine.json", &f) == 0)
        fail_msg("taken: %s for %s", to, from);
    if (!strstr(tr_error_message(), "machine.json") || !strstr(tr_error_message(), words))
        fail_msg("'%s' is not in: %s", words, tr_error_message());
    free(bad);
    tr_free(TR_MEM_TEXT, text);
}

static void hostile_files(void **state)
{
    (void)state;
    refused("{", "", "not valid JSON");
    refused("tailrace machine", "tailrace store", "not a file of figures");
    refused("\"version\": 2", "\"version\": 3", "another version");
    refused("\"version\": 2", "\"version\": 1", "a key of no meaning");
    refused("\"drives\":", "\"drivers\":", "list of 1 to 8");
    refused("\"drives\": [", "\"drives\": [], \"x\": [", "list of 1 to 8");
    refused("\"drives\": [", "\"drives\": [{}, ", "drives: folder");
    refused("\"folder\": \"drive 1\"", "\"folder\": \"drive 1\", \"n\": 1", "no meaning");
    refused("\"beside_read\": 7", "\"beside_read\": -7", "drives: beside_read: -7");
    refused("\"grain_tokens\": 2048", "\"grain_tokens\": 0", "grain_tokens: 0");
    refused("\"read\":", "\"raed\":", "read: is missing");
    refused("\"read\":", "\"read\": 1e3, \"read\":", "JSON");
    refused("\"flush\":", "\"speed\": 1, \"flush\":", "a key of no meaning");
    refused("\"flush\":", "\"flush\": -1, \"x\":", "not between");
    refused("\"write\":", "\"write\": 1e300, \"x\":", "not between");
    refused("\"write\":", "\"write\": 0, \"x\":", "not between");
    refused("\"update_8bit\":", "\"update_8bit\": 0, \"x\":", "not between");
    refused("\"adamw_8bit 16\"", "\"adamw_9bit 16\"", "no meaning");
    refused("\"threads\": 0", "\"threads\": \"many\"", "no number");
    refused("\"name\": \"rtx-5090\"", "\"name\": \"a\\u0000b\"", "JSON");
    refused("\"name\": \"rtx-5090\"", "\"name\": \"a\\u001bb\"", "control character");
    refused("\"name\": \"rtx-5090\"", "\"name\": \"\"", "name");
    refused("\"cuda\": true", "\"cuda\": 1", "neither true nor false");
    refused("\"rope 16\"", "\"ropes 16\"", "rope 16");
    refused("\"costs\": {", "\"costs\": {\"free lunch\": [0, 0, 0, 0], ", "no meaning");
    refused("\"costs\": {", "\"costs\": [], \"x\": {", "matmul");
    refused("\"sgd 32\": [", "\"sgd 32\": [1e9, ", "list of 4");
    refused("\"sgd 32\": [", "\"sgd 32\": [-1, 0, 0, 0], \"x\": [", "between 0 and 10");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_machines),    cmocka_unit_test(attention_pairs),
        cmocka_unit_test(named_drives),      cmocka_unit_test(no_speeds),
        cmocka_unit_test(drives_read_back),  cmocka_unit_test(every_op_costs),
        cmocka_unit_test(fit_finds_factors), cmocka_unit_test(file_reads_back),
        cmocka_unit_test(hostile_files),     cmocka_unit_test(a_file_is_whole),
        cmocka_unit_test(older_file),
    };
    int r;

    if (!mkdtemp(folder))
        return 1;
    r = cmocka_run_group_tests(tests, NULL, NULL);
    tr_remove_tree(folder);
    return r;
}
