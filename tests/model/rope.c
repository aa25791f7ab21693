/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotary tables against frequencies recorded from transformers 5 (float32, so 2e-7 relative), for a
 * head of 16 dimensions. Computed there with ROPE_INIT_FUNCTIONS of modeling_rope_utils.
 */
#include "tests/model/test.h"

#include <math.h>

#include "src/model/config.h"

#define HALF 8

static const struct {
    const char *name;
    struct tr_rope rope;
    double freq[HALF];
} golden[] = {
    {"default",
     {TR_ROPE_DEFAULT, 10000, 1, 0, 0, 0, 0, 1, 0, 0},
     {1.0, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786, 0.00100000005,
      0.000316227786}},
    {"linear",
     {TR_ROPE_LINEAR, 10000, 4, 0, 0, 0, 0, 1, 0, 0},
     {0.25, 0.079056941, 0.0250000004, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012,
      7.90569466e-05}},
    {"dynamic",
     {TR_ROPE_DYNAMIC, 10000, 2, 0, 0, 0, 0, 1, 0, 0},
     {1.0, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786, 0.00100000005,
      0.000316227786}},
    {"llama3",
     {TR_ROPE_LLAMA3, 500000, 8, 1, 4, 0, 0, 1, 8192, 0},
     {1.0, 0.193922758, 0.0376060307, 0.00729266508, 0.000524846022, 3.42810235e-05, 6.64786967e-06,
      1.28917316e-06}},
    {"yarn",
     {TR_ROPE_YARN, 10000, 4, 0, 0, 32, 1, 1.138629436111989, 2048, 1},
     {1.0, 0.316227764, 0.100000001, 0.025693506, 0.00624999963, 0.00138349656, 0.000250000012,
      7.90569466e-05}},
    {"yarn, wide",
     {TR_ROPE_YARN, 10000, 40, 0, 0, 32, 1, 1.0857263992561355, 4096, 1},
     {1.0, 0.316227764, 0.100000001, 0.0239147246, 0.00512499968, 0.000849862176, 2.49999994e-05,
      7.90569447e-06}},
    {"yarn, not truncated",
     {TR_ROPE_YARN, 200, 2, 0, 0, 4, 0.5, 1.3, 64, 0},
     {1.0, 0.515669286, 0.240987048, 0.102433018, 0.0415610969, 0.018231662, 0.00940150768,
      0.00484806858}},
};

static void tables_are_those_of_transformers(void **state)
{
    static struct tr_model_config c;
    float cos_table[9 * HALF], sin_table[9 * HALF];

    (void)state;
    c.head_dim = 2 * HALF;
    c.max_position = 64;
    for (size_t g = 0; g < sizeof(golden) / sizeof(golden[0]); g++) {
        double a = golden[g].rope.attention_factor;

        c.rope = golden[g].rope;
        assert_int_equal(tr_rope_tables(&c, 9, cos_table, sin_table), 0);
        for (int p = 0; p < 9; p++) {
            for (int i = 0; i < HALF; i++) {
                double angle = p * golden[g].freq[i], close = 1e-6 * (1 + fabs(angle));

                if (fabs(cos_table[p * HALF + i] - a * cos(angle)) > close ||
                    fabs(sin_table[p * HALF + i] - a * sin(angle)) > close)
                    fail_msg("%s: position %d, pair %d", golden[g].name, p, i);
            }
        }
    }
}

/* Without the attention factor the table would be off by a tenth: the check above would see it. */
static void attention_factor_is_applied(void **state)
{
    static struct tr_model_config c;
    float cos_table[HALF], sin_table[HALF];

    (void)state;
    c.head_dim = 2 * HALF;
    c.rope = golden[4].rope;
    assert_int_equal(tr_rope_tables(&c, 1, cos_table, sin_table), 0);
    assert_true(fabs(cos_table[0] - 1.138629436) < 1e-6);
}

static void yarn_factor_follows_mscale(void **state)
{
    static const struct {
        const char *extra;
        double factor;
    } cases[] = {{"", 1.138629436111989},
                 {",\"attention_factor\":1.3", 1.3},
                 {",\"mscale\":1.0", 1.138629436111989}, /* both or none */
                 {",\"mscale\":1.0,\"mscale_all_dim\":1.0", 1.0},
                 {",\"mscale\":0.707,\"mscale_all_dim\":0", 1.138629436111989}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tr_model_config c;
        char folder[64], text[1024];

        make_temp(folder);
        snprintf(text, sizeof(text),
                 "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":8,"
                 "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"vocab_size\":10,"
                 "\"max_position_embeddings\":8192,\"rope_scaling\":{\"rope_type\":\"yarn\","
                 "\"factor\":4.0,\"original_max_position_embeddings\":2048%s}}",
                 cases[i].extra);
        make_file(folder, "config.json", text);
        assert_int_equal(tr_config_read(make_path(folder, "config.json"), &c), 0);
        assert_true(fabs(c.rope.attention_factor - cases[i].factor) < 1e-12);
        make_clean(folder);
    }
}

static void dynamic_ends_at_its_trained_length(void **state)
{
    static struct tr_model_config c;
    float cos_table[65 * HALF], sin_table[65 * HALF];

    (void)state;
    c.head_dim = 2 * HALF;
    c.max_position = 64;
    c.rope = golden[2].rope;
    assert_int_equal(tr_rope_tables(&c, 64, cos_table, sin_table), 0);
    assert_refused(tr_rope_tables(&c, 65, cos_table, sin_table), "max_position_embeddings");
}

/* What is stretched keeps the length that it had before in max_position_embeddings. */
static void positions_of_scaled_models(void **state)
{
    static struct tr_model_config c = {.max_position = 4096};

    (void)state;
    assert_int_equal(tr_config_positions(&c), 4096);
    c.rope = (struct tr_rope){.type = TR_ROPE_LINEAR, .factor = 4};
    assert_int_equal(tr_config_positions(&c), 16384);
    c.rope.factor = 0.5;
    assert_int_equal(tr_config_positions(&c), 4096);
    c.rope = (struct tr_rope){.type = TR_ROPE_YARN, .factor = 4, .original_max_position = 4096};
    assert_int_equal(tr_config_positions(&c), 16384);
    c.max_position = 32768; /* says it itself */
    assert_int_equal(tr_config_positions(&c), 32768);
    c.rope = (struct tr_rope){.type = TR_ROPE_LLAMA3, .factor = 8, .original_max_position = 8192};
    assert_int_equal(tr_config_positions(&c), 32768);
    c.rope = (struct tr_rope){.type = TR_ROPE_DYNAMIC, .factor = 8};
    assert_int_equal(tr_config_positions(&c), 32768);
    c.rope = (struct tr_rope){.type = TR_ROPE_LINEAR, .factor = 1e6};
    assert_int_equal(tr_config_positions(&c), INT64_C(1) << 31);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_those_of_transformers),
        cmocka_unit_test(attention_factor_is_applied),
        cmocka_unit_test(yarn_factor_follows_mscale),
        cmocka_unit_test(positions_of_scaled_models),
        cmocka_unit_test(dynamic_ends_at_its_trained_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
