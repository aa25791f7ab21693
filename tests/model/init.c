/* SPDX-License-Identifier: Apache-2.0
 *
 * Random models: the same numbers whatever makes them (threads, ranges, init or import), the right
 * distribution, and folders that import like any other.
 */
#include "tests/model/run.h"
#include "tests/model/temp.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/init.h"
#include "src/model/random_init.h"

#define N 400000

static const char shape[] =
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\",\"hidden_size\":48,"
    "\"intermediate_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"vocab_size\":700,\"max_position_embeddings\":64,"
    "\"initializer_range\":0.05,\"bos_token_id\":1,\"eos_token_id\":[2,3]}";

static int fresh(void **state)
{
    (void)state;
    make_temp(temp);
    make_file(temp, "shape.json", shape);
    return 0;
}

static int init(const char *out, uint64_t seed, int dtype, int threads)
{
    return tr_init_folder(&(struct tr_init_folder_params){.arch = make_path(temp, "shape.json"),
                                                          .out = make_path(temp, out),
                                                          .seed = seed,
                                                          .dtype = dtype,
                                                          .threads = threads});
}

static float *values(uint64_t seed, const char *name, uint64_t from, size_t n, int threads)
{
    static struct tr_model_config c = {.init_std = 1};
    struct tr_tensor t = {.name = (char *)(uintptr_t)name, .role = TR_ROLE_Q};
    struct tr_random_init r;
    float *v = malloc(n * sizeof(float) + 1);

    assert_int_equal(tr_random_init_open(&r, &c, seed, threads), 0);
    assert_int_equal(tr_random_init_fill(&r, &t, from, n, TR_F32, v), 0);
    tr_random_init_close(&r);
    return v;
}

static void normal_with_the_right_moments(void **state)
{
    float *v = values(5, "model.x", 0, N, 2);
    double m[5] = {0}, together = 0;

    (void)state;
    for (int i = 0; i < N; i++) {
        for (int k = 1; k < 5; k++)
            m[k] += pow(v[i], k) / N;
        together += i ? v[i] * v[i - 1] / N : 0;
    }
    /* five standard errors each */
    assert_true(fabs(m[1]) < 5 / sqrt(N));
    assert_true(fabs(m[2] - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(m[3]) < 5 * sqrt(15.0 / N));
    assert_true(fabs(m[4] - 3) < 5 * sqrt(96.0 / N));
    assert_true(fabs(together) < 5 / sqrt(N));
    free(v);
}

/* Any range by any number of threads gives the same elements; seed and name change all of them. */
static void values_are_functions_of_their_place(void **state)
{
    static const uint64_t from[] = {0, 1, 2, 3, 4, 16383, 16384, 100001};
    float *all = values(7, "a", 0, N, 1), *seed = values(8, "a", 0, N, 1);
    float *high = values(7 + (1ull << 32), "a", 0, N, 1), *name = values(7, "b", 0, N, 1);
    int same = 0;

    (void)state;
    for (int i = 0; i < 8; i++) {
        size_t n = i % 3 ? 70001 : 1;
        float *part = values(7, "a", from[i], n, 1 + i % 3);

        assert_memory_equal(part, all + from[i], n * sizeof(float));
        free(part);
    }
    for (int i = 0; i < N; i++)
        same += (all[i] == seed[i]) + (all[i] == high[i]) + (all[i] == name[i]);
    assert_true(same < 10);
    free(all);
    free(seed);
    free(high);
    free(name);
}

/* Computed by the same formulas in Python: Philox4x32-10, Box and Muller, libm. */
static void first_values_are_those_on_record(void **state)
{
    static const double record[8] = {-0.400129780, -1.782435893, -0.448864580, -0.323570326,
                                     1.133295419,  0.302292857,  0.684029396,  -0.325655363};
    float *v = values(42, "model.layers.0.mlp.up_proj.weight", 1000, 8, 1);

    (void)state;
    for (int i = 0; i < 8; i++)
        assert_true(fabs(v[i] - record[i]) < 1e-6);
    free(v);
}

static void init_and_import_agree(void **state)
{
    (void)state;
    assert_int_equal(init("a", 9, TR_BF16, 1), 0);
    assert_int_equal(init("b", 9, TR_BF16, 3), 0);
    assert_true(make_same(make_path(temp, "a"), make_path(temp, "b")));
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.arch = make_path(temp, "shape.json"),
                                                   .seed = 9,
                                                   .dtype = TR_BF16,
                                                   .threads = 2}),
        0);
    assert_int_equal(run_export(temp, "c", -1), 0);
    assert_true(make_same(make_path(temp, "a"), make_path(temp, "c")));
    assert_int_equal(init("d", 10, TR_BF16, 1), 0);
    assert_false(make_same(make_path(temp, "a"), make_path(temp, "d")));
}

static void folders_are_complete(void **state)
{
    static const struct tr_model_config zero;
    struct tr_model_config c = zero;
    json_t *generation;
    json_error_t e;

    (void)state;
    assert_int_equal(init("a", 9, TR_F16, 1), 0);
    assert_int_equal(tr_config_read(make_path(temp, "a/config.json"), &c), 0);
    assert_int_equal(c.dtype, TR_F16);
    generation = json_load_file(make_path(temp, "a/generation_config.json"), 0, &e);
    assert_int_equal(json_array_size(json_object_get(generation, "eos_token_id")), 2);
    json_decref(generation);
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "a"), .dtype = -1}), 0);
    assert_int_equal(run_export(temp, "b", -1), 0);
    assert_true(make_same(make_path(temp, "a"), make_path(temp, "b")));
    assert_refused(init("a", 9, TR_F16, 1), "a: exists and is not an empty folder");
}

static void tokenizers_are_copied(void **state)
{
    struct tr_init_folder_params p = {.dtype = -1};

    (void)state;
    p.arch = make_path(temp, "shape.json");
    p.tokenizer = make_path(temp, "t");
    p.out = make_path(temp, "a");
    assert_int_equal(mkdir(p.tokenizer, 0755), 0);
    assert_refused(tr_init_folder(&p), "t/tokenizer.json: cannot open");
    assert_false(make_exists(temp, "a"));
    make_file(p.tokenizer, "tokenizer.json", "{}");
    make_file(p.tokenizer, "tokenizer_config.json", "{}");
    make_file(p.tokenizer, "other.txt", "x");
    assert_int_equal(tr_init_folder(&p), 0);
    assert_true(make_exists(p.out, "tokenizer.json") &&
                make_exists(p.out, "tokenizer_config.json"));
    assert_false(make_exists(p.out, "other.txt"));
    assert_refused(tr_init_folder(&(struct tr_init_folder_params){
                       .arch = "no-such-shape", .out = make_path(temp, "b"), .dtype = -1}),
                   "no-such-shape: neither a known shape");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, clean_temp)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(normal_with_the_right_moments),
        TEST(values_are_functions_of_their_place),
        TEST(first_values_are_those_on_record),
        TEST(init_and_import_agree),
        TEST(folders_are_complete),
        TEST(tokenizers_are_copied),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
