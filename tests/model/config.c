/* SPDX-License-Identifier: Apache-2.0
 *
 * config.json: each family with both spellings, and one line for everything that is refused. A case
 * is a patch on a family's configuration, so that exactly one thing is wrong.
 */
#include "tests/model/test.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/json.h"
#include "src/model/config.h"

static const char llama[] =
    "{'architectures':['LlamaForCausalLM'],'model_type':'llama','hidden_size':64,"
    "'intermediate_size':96,'num_hidden_layers':4,'num_attention_heads':8,'vocab_size':100,"
    "'max_position_embeddings':128,'hidden_act':'silu','torch_dtype':'bfloat16'}";
static const char mistral[] =
    "{'architectures':['MistralForCausalLM'],'model_type':'mistral','hidden_size':64,"
    "'intermediate_size':96,'num_hidden_layers':4,'num_attention_heads':8,'num_key_value_heads':2,"
    "'vocab_size':100,'max_position_embeddings':128}";
static const char qwen2[] =
    "{'architectures':['Qwen2ForCausalLM'],'model_type':'qwen2','hidden_size':64,"
    "'intermediate_size':96,'num_hidden_layers':4,'num_attention_heads':8,'num_key_value_heads':2,"
    "'vocab_size':100,'sliding_window':16,'max_window_layers':2,'use_sliding_window':false}";
static const char qwen3[] =
    "{'architectures':['Qwen3ForCausalLM'],'model_type':'qwen3','hidden_size':64,"
    "'intermediate_size':96,'num_hidden_layers':4,'num_attention_heads':8,'num_key_value_heads':2,"
    "'vocab_size':100}";

/* Single quotes keep the cases readable. */
static json_t *parse(const char *text)
{
    char *copy = strdup(text);
    json_t *o;

    for (char *p = copy; *p; p++)
        if (*p == '\'')
            *p = '"';
    assert_int_equal(tr_json_parse(copy, strlen(copy), "case", &o), 0);
    free(copy);
    return o;
}

/* A key with the value 'absent' is taken away. */
static int read_patched(const char *base, const char *patch, struct tr_model_config *c)
{
    json_t *o = parse(base), *p = parse(patch), *v;
    const char *key;
    int r;

    json_object_foreach(p, key, v) {
        const char *text = json_string_value(v);

        if (text && !strcmp(text, "absent"))
            json_object_del(o, key);
        else
            json_object_set(o, key, v);
    }
    r = tr_config_parse(o, "F/config.json", c);
    json_decref(o);
    json_decref(p);
    return r;
}

static void families_differ_where_they_should(void **state)
{
    struct tr_model_config c;

    (void)state;
    assert_int_equal(read_patched(llama, "{}", &c), 0);
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_int_equal(c.kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.dtype, TR_BF16);
    assert_false(c.qkv_bias || c.o_bias || c.qk_norm || c.tied || c.window[0]);
    assert_int_equal(read_patched(llama, "{'hidden_size':64.0,'vocab_size':1e2}", &c), 0);
    assert_true(c.hidden == 64 && c.vocab == 100);
    assert_int_equal(read_patched(llama,
                                  "{'quantization_config':{},'num_experts':0,'text_config':null,"
                                  "'no_rope_layers':[],'num_local_experts':false}",
                                  &c),
                     0);
    assert_int_equal(read_patched(llama, "{'attention_bias':true}", &c), 0);
    assert_true(c.qkv_bias && c.o_bias);

    assert_int_equal(read_patched(mistral, "{}", &c), 0);
    assert_int_equal(c.window[3], 4096);
    assert_int_equal(read_patched(mistral, "{'sliding_window':null}", &c), 0);
    assert_int_equal(c.window[0], 0);
    assert_int_equal(read_patched(mistral, "{'sliding_window':7}", &c), 0);
    assert_int_equal(c.window[0], 7);

    assert_int_equal(read_patched(qwen2, "{}", &c), 0);
    assert_true(c.qkv_bias && !c.o_bias && !c.qk_norm);
    assert_int_equal(c.dtype, -1);

    assert_int_equal(read_patched(qwen3, "{}", &c), 0);
    assert_true(!c.qkv_bias && c.qk_norm);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(read_patched(qwen3, "{'head_dim':16,'attention_bias':true}", &c), 0);
    assert_int_equal(c.head_dim, 16);
    assert_true(c.qkv_bias && c.o_bias);
}

static void qwen_windows_follow_their_switch(void **state)
{
    struct tr_model_config c;

    (void)state;
    assert_int_equal(read_patched(qwen2, "{}", &c), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(c.window[i], 0);
    assert_int_equal(read_patched(qwen2, "{'use_sliding_window':true}", &c), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(c.window[i], i < 2 ? 0 : 16);
    assert_int_equal(read_patched(qwen2,
                                  "{'use_sliding_window':true,'layer_types':['sliding_attention',"
                                  "'full_attention','full_attention','sliding_attention']}",
                                  &c),
                     0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(c.window[i], i % 3 ? 0 : 16);
    assert_int_equal(read_patched(qwen2, "{'use_sliding_window':true,'sliding_window':null}", &c),
                     0);
    assert_int_equal(c.window[3], 0);
}

static void both_spellings_say_the_same(void **state)
{
    struct tr_model_config a, b;

    (void)state;
    assert_int_equal(
        read_patched(llama,
                     "{'rope_theta':500000.0,'rope_scaling':{'type':'llama3','factor':8,"
                     "'low_freq_factor':1,'high_freq_factor':4,"
                     "'original_max_position_embeddings':32},'torch_dtype':'float16'}",
                     &a),
        0);
    assert_int_equal(read_patched(llama,
                                  "{'rope_parameters':{'rope_type':'llama3','rope_theta':500000.0,"
                                  "'factor':8,'low_freq_factor':1,'high_freq_factor':4,"
                                  "'original_max_position_embeddings':32},'dtype':'float16',"
                                  "'torch_dtype':'absent'}",
                                  &b),
                     0);
    assert_memory_equal(&a, &b, sizeof(a));
    assert_int_equal(a.rope.type, TR_ROPE_LLAMA3);
    assert_int_equal(a.dtype, TR_F16);
    /* A known type by model_type alone, and what changes nothing is not looked at. */
    assert_int_equal(read_patched(llama,
                                  "{'architectures':null,'pretraining_tp':2,'use_cache':true,"
                                  "'unheard_of':[1,2]}",
                                  &b),
                     0);
}

static const struct {
    const char *base, *patch, *words;
} refusals[] = {
    {llama, "{'architectures':['GPT2LMHeadModel'],'model_type':'gpt2'}",
     "F/config.json: \"architectures\" is [\"GPT2LMHeadModel\"]"},
    {llama, "{'architectures':['LlamaForCausalLM','X']}", "\"architectures\""},
    {llama, "{'architectures':'LlamaForCausalLM'}", "\"architectures\""},
    {llama, "{'architectures':'absent','model_type':'absent'}", "\"model_type\" is missing"},
    {llama, "{'model_type':'mistral'}", "\"model_type\" is \"mistral\"; it contradicts"},
    {llama, "{'hidden_size':'absent'}", "\"hidden_size\" is missing; an integer from 1"},
    {llama, "{'hidden_size':'64'}", "\"hidden_size\" is \"64\"; an integer"},
    {llama, "{'hidden_size':-64}", "\"hidden_size\" is -64"},
    {llama, "{'hidden_size':64.5}", "\"hidden_size\" is 64.5"},
    {llama, "{'hidden_size':1e300}", "\"hidden_size\" is "},
    {llama, "{'hidden_size':0}", "\"hidden_size\" is 0"},
    {llama, "{'hidden_size':65}", "num_attention_heads must divide"},
    {llama, "{'hidden_size':9000000000000000000}", "\"hidden_size\""},
    {llama, "{'num_attention_heads':64}", "even number of dimensions"},
    {llama, "{'num_hidden_layers':1025}",
     "\"num_hidden_layers\" is 1025; an integer from 1 to 1024"},
    {llama, "{'num_key_value_heads':3}", "\"num_key_value_heads\" is 3; it must divide"},
    {llama, "{'num_key_value_heads':16}", "\"num_key_value_heads\" is 16"},
    {llama, "{'head_dim':7}", "\"head_dim\" is 7"},
    {llama, "{'vocab_size':0}", "\"vocab_size\""},
    {llama, "{'rms_norm_eps':-1e-6}", "\"rms_norm_eps\""},
    {llama, "{'rms_norm_eps':'1e-6'}", "\"rms_norm_eps\""},
    {llama, "{'tie_word_embeddings':1}", "\"tie_word_embeddings\" is 1; true or false"},
    {llama, "{'hidden_act':'gelu'}", "\"hidden_act\" is \"gelu\"; only silu"},
    {llama, "{'mlp_bias':true}", "\"mlp_bias\" is true"},
    {mistral, "{'attention_bias':true}", "\"attention_bias\" is true"},
    {qwen2, "{'attention_bias':false}", "\"attention_bias\" is false"},
    {llama, "{'quantization_config':{'bits':4}}", "\"quantization_config\" is {\"bits\":4}"},
    {mistral, "{'num_local_experts':8}", "\"num_local_experts\" is 8"},
    {qwen3, "{'num_experts':8}", "\"num_experts\""},
    {llama, "{'attention_dropout':0.1}", "\"attention_dropout\" is 0.1"},
    {llama, "{'partial_rotary_factor':0.5}", "\"partial_rotary_factor\""},
    {llama, "{'sliding_window':16}", "\"sliding_window\" is 16; this architecture has no window"},
    {mistral, "{'sliding_window':0}", "\"sliding_window\" is 0"},
    {qwen2, "{'layer_types':['full_attention']}", "\"layer_types\""},
    {qwen2, "{'layer_types':['full_attention','full_attention','full_attention','linear']}",
     "\"layer_types\""},
    {qwen2,
     "{'layer_types':['full_attention','full_attention','full_attention',"
     "'sliding_attention']}",
     "has a window and the configuration has none"},
    {llama, "{'torch_dtype':'float64'}", "\"torch_dtype\" is \"float64\""},
    {llama, "{'dtype':'float32'}", "it contradicts \"dtype\""},
    {llama, "{'rope_scaling':{'rope_type':'longrope','factor':2}}",
     "\"rope_scaling.rope_type\" is \"longrope\"; supported are"},
    {llama, "{'rope_scaling':{'type':'su','factor':2}}", "\"rope_scaling.type\" is \"su\""},
    {llama, "{'rope_scaling':{'type':'linear','rope_type':'yarn','factor':2}}", "contradicts"},
    {llama, "{'rope_scaling':{'type':'linear'}}", "\"rope_scaling.factor\" is missing"},
    {llama, "{'rope_scaling':{'type':'linear','factor':0}}", "\"rope_scaling.factor\" is 0"},
    {llama, "{'rope_scaling':{'type':'linear','factor':'2'}}", "\"rope_scaling.factor\""},
    {llama, "{'rope_scaling':[1]}", "\"rope_scaling\" is [1]; an object"},
    {llama, "{'rope_theta':0}", "\"rope_theta\" is 0"},
    {llama,
     "{'rope_scaling':{'rope_type':'llama3','factor':8,'low_freq_factor':4,"
     "'high_freq_factor':4}}",
     "must be above low_freq_factor"},
    {llama, "{'rope_scaling':{'rope_type':'yarn','factor':8,'beta_fast':1,'beta_slow':2}}",
     "\"rope_scaling.beta_fast\""},
    {llama, "{'rope_parameters':{'full_attention':{'rope_theta':1e4}}}", "one rope for all layers"},
    {llama, "{'rope_parameters':{'rope_type':'default','mrope_section':[1,2]}}", "mrope_section"},
    {llama,
     "{'rope_parameters':{'rope_type':'default'},'rope_scaling':{'type':'linear',"
     "'factor':2}}",
     "contradicts \"rope_parameters\""},
};

static void refuses_by_file_and_key(void **state)
{
    struct tr_model_config c;

    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        assert_int_equal(read_patched(refusals[i].base, "{}", &c), 0); /* it was the patch */
        assert_refused(read_patched(refusals[i].base, refusals[i].patch, &c), refusals[i].words);
    }
}

static void files_that_are_no_json(void **state)
{
    static const char *const texts[] = {"",
                                        "[]",
                                        "{\"hidden_size\": NaN}",
                                        "{\"hidden_size\": 1, \"hidden_size\": 2}",
                                        "{} trailing",
                                        "{\"rms_norm_eps\": 1e999}",
                                        "{\"a\": \"\xff\"}",
                                        "{\"vocab_size\": 1e}"};
    struct tr_model_config c;
    char folder[64];

    (void)state;
    make_temp(folder);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        make_file(folder, "config.json", texts[i]);
        assert_refused(tr_config_read(make_path(folder, "config.json"), &c), "/config.json: ");
    }
    assert_refused(tr_config_read(make_path(folder, "none.json"), &c), "/none.json: ");
    assert_refused(tr_config_read(folder, &c), folder);
    make_clean(folder);
}

static void named_shapes_are_whole(void **state)
{
    static const struct {
        const char *name;
        double billions;
    } shapes[] = {{"llama-7b", 6.738},       {"llama-13b", 13.016},       {"llama-30b", 32.529},
                  {"llama-65b", 65.286},     {"llama-2-70b", 68.977},     {"llama-3-8b", 8.030},
                  {"llama-3-70b", 70.554},   {"llama-3.1-405b", 405.853}, {"llama-3.2-1b", 1.236},
                  {"tinyllama-1.1b", 1.100}, {"mistral-7b", 7.242},       {"qwen2.5-7b", 7.616},
                  {"qwen2.5-0.5b", 0.494},   {"qwen3-8b", 8.191},         {"qwen3-0.6b", 0.596}};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct tr_model_config c;
        double q, kv, block, n;
        json_t *o;

        assert_int_equal(tr_config_arch(shapes[i].name, &o), 0);
        assert_int_equal(tr_config_parse(o, shapes[i].name, &c), 0);
        json_decref(o);
        q = (double)c.heads * c.head_dim;
        kv = (double)c.kv_heads * c.head_dim;
        block = 2 * q * c.hidden + 2 * kv * c.hidden + 3.0 * c.hidden * c.ffn + 2.0 * c.hidden;
        block += (c.qkv_bias ? q + 2 * kv : 0) + (c.qk_norm ? 2.0 * c.head_dim : 0);
        n = c.layers * block + (c.tied ? 1.0 : 2.0) * c.vocab * c.hidden + c.hidden;
        if (fabs(n / 1e9 - shapes[i].billions) > 0.0011 * (1 + shapes[i].billions / 10))
            fail_msg("%s: %.3f billion", shapes[i].name, n / 1e9);
    }
    assert_refused(tr_config_arch("llama-8b", &(json_t *){NULL}),
                   "llama-8b: neither a known shape");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_differ_where_they_should),
        cmocka_unit_test(qwen_windows_follow_their_switch),
        cmocka_unit_test(both_spellings_say_the_same),
        cmocka_unit_test(refuses_by_file_and_key),
        cmocka_unit_test(files_that_are_no_json),
        cmocka_unit_test(named_shapes_are_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
