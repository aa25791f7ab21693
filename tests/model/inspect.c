/* SPDX-License-Identifier: Apache-2.0
 *
 * The four kinds of path that inspect knows, as JSON and as text, and what it says of others.
 */
#include "tests/model/run.h"
#include "tests/model/temp.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "src/run/cursor.h"
#include "src/run/inspect.h"
#include "tests/json_blocks.h"

static int fresh(void **state)
{
    struct make_shape s = make_small;
    struct make_folder f;

    (void)state;
    s.family = "qwen3";
    make_temp(temp);
    make_table(&f, &s);
    make_write(&f, make_path(temp, "m"));
    return 0;
}

static json_t *inspect(const char *path, const char *kind)
{
    json_t *o;

    if (tr_inspect(path, NULL, &o) < 0)
        fail_msg("%s", tr_error_message());
    assert_string_equal(json_string_value(json_object_get(o, "kind")), kind);
    return o;
}

static int64_t number(const json_t *o, const char *a, const char *b)
{
    const json_t *v = json_object_get(o, a);

    return json_integer_value(b ? json_object_get(v, b) : v);
}

static void model_folders_and_files(void **state)
{
    json_t *o = inspect(make_path(temp, "m"), "model folder"), *t;
    char *text = tr_inspect_text(o);

    (void)state;
    assert_int_equal(number(o, "config", "hidden"), 24);
    assert_int_equal(json_array_size(json_object_get(o, "files")), 3);
    t = json_array_get(json_object_get(o, "tensors"), 0);
    assert_string_equal(json_string_value(json_object_get(t, "name")), "lm_head.weight");
    assert_string_equal(json_string_value(json_object_get(t, "dtype")), "F32");
    assert_non_null(strstr(text, "architecture: Qwen3ForCausalLM\n"));
    assert_non_null(strstr(text, "  lm_head.weight  F32  [600,24]  56.2 KiB  model-00001-of"));
    free(text);
    json_decref(o);
    o = inspect(make_path(temp, "m/model-00003-of-00003.safetensors"), "safetensors file");
    assert_int_equal(json_array_size(json_object_get(o, "files")), 1);
    json_decref(o);
}

static void runs_and_stores(void **state)
{
    json_t *o;

    (void)state;
    assert_int_equal(run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"),
                                                                .dtype = -1,
                                                                .state = 1}),
                     0);
    o = inspect(make_path(temp, "r-store"), "store");
    assert_int_equal(number(o, "store", "commit"), 1);
    assert_int_equal(number(o, "store", "payload_bytes"), 6);
    assert_int_equal(json_array_size(json_object_get(json_object_get(o, "store"), "segments")), 10);
    json_decref(o);
    assert_int_equal(mkdir(make_path(temp, "run"), 0755), 0);
    rename(make_path(temp, "r-store"), make_path(temp, "run/store"));
    rename(make_path(temp, "r-source"), make_path(temp, "run/source"));
    o = inspect(make_path(temp, "run"), "run");
    assert_true(json_is_true(json_object_get(o, "optimizer_state")));
    assert_int_equal(number(o, "store", "generations"), 2);
    assert_int_equal(number(o, "parameters", NULL), 37784);
    json_decref(o);
    rename(make_path(temp, "run/store"), make_path(temp, "elsewhere"));
    assert_refused(tr_inspect(make_path(temp, "run"), NULL, &o), "run/store: cannot open");
    assert_int_equal(tr_inspect(make_path(temp, "run"), make_path(temp, "elsewhere"), &o), 0);
    assert_int_equal(number(o, "store", "generations"), 2);
    json_decref(o);
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}), 0);
    assert_refused(tr_inspect(make_path(temp, "run"), make_path(temp, "r-store"), &o),
                   "r-store: is the store of another run");
}

/* What inspect says of a run whose newest commit has this cursor; behind one of the step before. */
static void stands(struct tr_cursor c, const char *waits, const char *resume)
{
    unsigned char payload[TR_CURSOR_BYTES];
    struct tr_store *s;
    const char *path = make_path(temp, "run");
    json_t *o;
    char *text;

    assert_int_equal(tr_store_open(&s, make_path(temp, "run/store"), TR_STORE_WRITE), 0);
    for (int k = 0; k < 2; k++) {
        struct tr_cursor now = c;

        now.step -= (uint64_t)!k;
        tr_cursor_pack(&now, payload);
        assert_int_equal(tr_store_commit(s, payload, sizeof(payload)), 0);
    }
    tr_store_close(s);
    o = inspect(path, "run");
    text = tr_inspect_text(o);
    if (!strstr(text, waits) || !strstr(text, resume))
        fail_msg("neither %s nor %s: %s", waits, resume, text);
    assert_non_null(strstr(text, "commit_before: of step 2;"));
    free(text);
    json_decref(o);
}

static void where_a_run_stands(void **state)
{
    struct tr_cursor c = {.step = 3, .loss_scale = 1};

    (void)state;
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}), 0);
    assert_int_equal(mkdir(make_path(temp, "run"), 0755), 0);
    rename(make_path(temp, "r-store"), make_path(temp, "run/store"));
    rename(make_path(temp, "r-source"), make_path(temp, "run/source"));
    stands(c, "update_waits: no\n", "resume: goes on with step 4\n");
    make_file(make_path(temp, "run"), "plan.json", "{\"steps\": 5}");
    stands(c, "update_waits: no\n", "resume: goes on with step 4 of 5\n");
    c.pending.is = 1;
    stands(c, "update_waits: yes\n",
           "resume: applies the update of step 3, then goes on with step 4 of 5\n");
    c.pending.is = 0;
    make_file(make_path(temp, "run"), "plan.json", "{\"steps\": 3}");
    stands(c, "update_waits: no\n", "resume: exports the model, as all 3 steps are done\n");
    assert_int_equal(mkdir(make_path(temp, "run/model"), 0755), 0);
    make_file(make_path(temp, "run/model"), "config.json", "{}");
    stands(c, "update_waits: no\n", "resume: has nothing to do: all 3 steps are done\n");
    make_file(make_path(temp, "run"), "plan.json", "{\"steps\": 3, \"model_step\": 2}");
    stands(c, "update_waits: no\n", "resume: exports the model, as all 3 steps are done\n");
    assert_int_equal(mkdir(make_path(temp, "run/model-3"), 0755), 0);
    make_file(make_path(temp, "run/model-3"), "config.json", "{}");
    stands(c, "update_waits: no\n", "resume: has nothing to do: all 3 steps are done\n");
    make_file(make_path(temp, "run"), "plan.json", "{\"store_uuid\": 3}");
    stands(c, "update_waits: no\n", "resume: makes plan.json anew, which is damaged, then goes on");
}

static char *described(void *path)
{
    json_t *o;
    int r = tr_inspect(path, NULL, &o);

    return blocks_text(r, o);
}

static void a_description_is_whole(void **state)
{
    char path[256];

    (void)state;
    snprintf(path, sizeof(path), "%s", make_path(temp, "m"));
    assert_true(blocks_whole(described, path, 200) > 190);
    assert_int_equal(
        run_import(temp, (struct tr_import_params){.model = make_path(temp, "m"), .dtype = -1}), 0);
    assert_int_equal(mkdir(make_path(temp, "run"), 0755), 0);
    rename(make_path(temp, "r-store"), make_path(temp, "run/store"));
    rename(make_path(temp, "r-source"), make_path(temp, "run/source"));
    snprintf(path, sizeof(path), "%s", make_path(temp, "run"));
    assert_true(blocks_whole(described, path, 100) > 90);
}

static void other_paths(void **state)
{
    json_t *o;

    (void)state;
    assert_refused(tr_inspect(make_path(temp, "none"), NULL, &o), "none: cannot open");
    assert_refused(tr_inspect("caf\xe9", NULL, &o), "the path is not valid UTF-8");
    assert_refused(tr_inspect(temp, NULL, &o),
                   "neither a model folder (no config.json), nor a run");
    mkdir(make_path(temp, "cut"), 0755);
    make_file(make_path(temp, "cut"), "run.yaml", "seed: 0\n");
    assert_refused(tr_inspect(make_path(temp, "cut"), NULL, &o), "a run whose import is not done");
    assert_refused(tr_inspect(make_path(temp, "m/config.json"), NULL, &o), "config.json: ");
    make_file(temp, "store.json", "{}");
    assert_refused(tr_inspect(temp, NULL, &o), "store.json");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, clean_temp)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(model_folders_and_files), TEST(runs_and_stores), TEST(where_a_run_stands),
        TEST(a_description_is_whole),  TEST(other_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
