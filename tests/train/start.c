/* SPDX-License-Identifier: Apache-2.0
 *
 * A run starts at once: going on with one reads the names, the layout and the last commit of its
 * store, not its bytes, however large the model is. What is read is what the kernel has counted for
 * this process, on two models of which one is eight times the other; the first step, which does
 * read the store, shows that the count would see it. And the budgets that it starts with fit
 * together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "offload/store.h"
#include "src/run/run.h"
#include "tests/train/common.h"

#define MIB ((uint64_t)1 << 20)

/* Bytes that this process has had from a drive. */
static uint64_t read_bytes(void)
{
    char line[128];
    unsigned long long n = 0;
    FILE *f = fopen("/proc/self/io", "r");

    if (!f) {
        print_message("skipped: no /proc/self/io\n");
        skip();
    }
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "read_bytes: %llu", &n) == 1)
            break;
    fclose(f);
    return n;
}

struct cost {
    uint64_t store, opening, step;
};

static struct cost start(int layers)
{
    struct tiny shape = {"llama", 128, 512, layers, 4, 4, 32, 500, 512, ""};
    char config[4352], data[4352], out[4352];
    struct tr_train_params p = {.arch = config,
                                .data = data,
                                .out = out,
                                .steps = 2,
                                .batch_size = 1,
                                .seq_len = 64,
                                .device = "cpu",
                                .device_memory = 16 * MIB,
                                .threads = 2,
                                .export_model = TR_NO};
    struct tr_step_report report;
    struct cost c;
    uint64_t before;
    tr_run *run;

    snprintf(config, sizeof(config), "%s", scratch_path("config-%d.json", layers));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%d.jsonl", layers));
    snprintf(out, sizeof(out), "%s", scratch_path("run-%d", layers));
    tiny_config(config, &shape);
    token_data(data, 4, 64, 64, shape.vocab);
    if (train_part(&p, 1) < 0)
        fail_msg("%s", tr_message());
    before = read_bytes();
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    c.opening = read_bytes() - before;
    c.store = tr_layout_bytes(tr_store_layout(run->store));
    assert_int_equal(tr_train_step(run, &report), 1);
    c.step = read_bytes() - before - c.opening;
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    print_message("%d layers: store of %llu bytes, %llu read to open it, %llu in the first step\n",
                  layers, (unsigned long long)c.store, (unsigned long long)c.opening,
                  (unsigned long long)c.step);
    return c;
}

static void test_start(void **state)
{
    struct cost small = start(6), large = start(48);

    (void)state;
    assert_true(large.store > 7 * small.store);
    assert_true(small.opening <= MIB / 4 && large.opening <= MIB / 4);
    if (large.step < large.store) { /* which shows nothing */
        print_message("skipped: a drive whose reads are not counted\n");
        skip();
    }
}

/* Both of the cpu device's budgets are of the same memory: what nobody asks for fits together. */
static void test_default_budgets(void **state)
{
    struct tr_run run = {0};
    double free_bytes;

    (void)state;
    assert_int_equal(tr_devices_parse("cpu", &run.choice), 0);
    assert_int_equal(run_resolve_memory(&run), 0);
    free_bytes = (double)run.params.device_memory / 0.8;
    assert_true((double)run.params.host_memory < 0.2 * free_bytes);
    assert_true((double)run.params.host_memory > 0.1 * free_bytes);
    assert_true(run.host_left);
    run.params = (struct tr_train_params){.device_memory = 64 << 20};
    assert_int_equal(run_resolve_memory(&run), 0);
    assert_true((double)run.params.host_memory > 0.5 * free_bytes);
    run.params.host_memory = 1 << 20;
    assert_int_equal(run_resolve_memory(&run), 0);
    assert_false(run.host_left);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_start),
                                       cmocka_unit_test(test_default_budgets)};

    return cmocka_run_group_tests_name("start", tests, NULL, NULL);
}
