/* SPDX-License-Identifier: Apache-2.0
 *
 * Import and export stream: the process never grows by more than 64 MiB, whatever the model. Tried
 * with 400 MB of weights in the store, single tensors of 80 MB, and a change of type on the way.
 */
#include "tests/model/run.h"

#include <stdlib.h>

#define LIMIT_KIB (64 << 10)

static char temp[64];

/* Under AddressSanitizer the heap of earlier work stays mapped: nothing can be said. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static int setup(void **state)
{
    static const struct make_shape s = {.family = "llama",
                                        .layers = 2,
                                        .hidden = 1024,
                                        .ffn = 8192,
                                        .heads = 8,
                                        .kv_heads = 2,
                                        .head_dim = 128,
                                        .vocab = 20000,
                                        .dtype = "BF16",
                                        .shards = 2};
    struct make_folder f;

    (void)state;
    make_temp(temp);
    make_table(&f, &s);
    f.sparse = 1;
    make_write(&f, make_path(temp, "m"));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    make_clean(temp);
    return 0;
}

static long status_kib(const char *key)
{
    char line[256];
    long kib = -1;
    FILE *in = fopen("/proc/self/status", "r");

    while (in && fgets(line, sizeof(line), in))
        if (!strncmp(line, key, strlen(key)))
            kib = strtol(line + strlen(key), NULL, 10);
    if (in)
        fclose(in);
    return kib;
}

/* Starts the peak anew where the kernel allows it; returns what the process has now. */
static long begin_peak(void)
{
    FILE *out = fopen("/proc/self/clear_refs", "w");

    if (out) {
        fputs("5", out);
        fclose(out);
    }
    return status_kib("VmRSS:");
}

static void the_measure_sees_growth(void **state)
{
    long before = begin_peak();
    size_t n = 2l * LIMIT_KIB << 10;
    volatile char *p = malloc(n);

    (void)state;
    for (size_t i = 0; i < n; i += 4096)
        p[i] = 1;
    free((void *)(uintptr_t)p);
    assert_true(status_kib("VmHWM:") - before > LIMIT_KIB);
}

static void import_and_export_stay_small(void **state)
{
    static const int types[] = {-1, TR_F32};

    (void)state;
    if (SANITIZED) {
        print_message("skipped: resident memory says nothing under AddressSanitizer\n");
        skip();
    }
    for (int i = 0; i < 2; i++) {
        long before = begin_peak(), import, export;

        assert_int_equal(run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"),
                                                                    .dtype = types[i]}),
                         0);
        import = status_kib("VmHWM:") - before;
        before = begin_peak();
        assert_int_equal(run_export(temp, "out", TR_BF16), 0);
        export = status_kib("VmHWM:") - before;
        print_message("import grows by %ld KiB, export by %ld KiB\n", import, export);
        assert_true(import < LIMIT_KIB && export < LIMIT_KIB);
        assert_true(make_same(make_path(temp, "m"), make_path(temp, "out")));
        make_clean(make_path(temp, "out"));
        run_forget(temp);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_measure_sees_growth),
        cmocka_unit_test_setup_teardown(import_and_export_stay_small, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
