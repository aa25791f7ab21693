/* SPDX-License-Identifier: Apache-2.0
 *
 * A folder that cannot be read to its end, or whose files cannot be looked at, is an error wherever
 * they are copied: an import and an export of half of them would both look whole. The same of what
 * is written as JSON where memory runs out.
 */
#include "tests/model/run.h"
#include "tests/model/temp.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/json.h"
#include "tests/json_blocks.h"

static char model[128];
static int names_left = -1; /* until reading a folder fails; -1: it does not */

/* In place of the C library's. */
struct dirent *readdir(DIR *d)
{
    static struct dirent *(*real)(DIR * d);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "readdir64");
    if (names_left == 0) {
        errno = EIO;
        return NULL;
    }
    names_left -= names_left > 0;
    return real(d);
}

static int looks_left = -1; /* until a path cannot be told; -1: all can */

char *realpath(const char *path, char *out)
{
    static char *(*real)(const char *path, char *out);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "realpath");
    if (looks_left == 0) {
        errno = ENOMEM;
        return NULL;
    }
    looks_left -= looks_left > 0;
    return real(path, out);
}

static int fresh(void **state)
{
    struct make_folder f;

    (void)state;
    make_temp(temp);
    make_table(&f, &make_small);
    snprintf(model, sizeof(model), "%s/m", temp);
    make_write(&f, model);
    assert_int_equal(mkdir(make_path(model, "additional_chat_templates"), 0755), 0);
    make_file(model, "additional_chat_templates/tool_use.jinja", "{{ tools }}");
    return 0;
}

/* The names that a folder has before its listing fails. */
static void try_with(int names, int (*go)(void), const char *words)
{
    int r;

    names_left = names;
    r = go();
    names_left = -1;
    assert_refused(r, words);
}

static int import(void)
{
    return run_import(temp, (struct tr_import_params){.model = model, .dtype = -1});
}

static int export(void)
{
    return run_export(temp, "out", -1);
}

static void folders_are_read_to_their_end(void **state)
{
    (void)state;
    for (int names = 0; names < 4; names++)
        try_with(names, import, "cannot read the folder: Input/output error");
    assert_false(make_exists(temp, "r-store") || make_exists(temp, "r-source"));
    assert_int_equal(import(), 0);
    for (int names = 0; names < 4; names++)
        try_with(names, export, "r-source: cannot read the folder: Input/output error");
    assert_false(make_exists(temp, "out"));
    assert_int_equal(export(), 0);
    assert_true(make_same(model, make_path(temp, "out")));
}

/* However many looks succeed: all is there, or nothing is. */
static void files_are_looked_at(void **state)
{
    int r = -1;

    (void)state;
    for (int looks = 0; r < 0; looks++) {
        looks_left = looks;
        r = import();
        looks_left = -1;
        assert_int_equal(make_exists(temp, "r-source"), r == 0);
    }
    assert_int_equal(export(), 0);
    assert_true(make_same(model, make_path(temp, "out")));
    assert_true(make_exists(temp, "out/additional_chat_templates/tool_use.jinja"));
    r = -1;
    for (int looks = 0; r < 0; looks++) {
        looks_left = looks;
        r = run_export(temp, "again", -1);
        looks_left = -1;
        assert_int_equal(make_exists(temp, "again"), r == 0);
    }
    assert_true(make_same(model, make_path(temp, "again")));
}

/* A file whose name no list could have is left out, and told of. */
static void names_are_text(void **state)
{
    char note[512] = "";

    (void)state;
    make_file(model, "caf\xe9.txt", "x");
    assert_int_equal(tr_keep_note(model, note, sizeof(note)), 0);
    assert_non_null(strstr(note, "m/caf\xe9.txt: its name is not UTF-8: left out"));
    assert_int_equal(import(), 0);
    assert_int_equal(unlink(make_path(model, "caf\xe9.txt")), 0);
    assert_int_equal(export(), 0);
    assert_true(make_same(model, make_path(temp, "out")));
}

/* A model is exported with the tokenizer that it was trained with, and with nothing of another. */
static void tokenizer_is_the_runs(void **state)
{
    static const char *const others[] = {"tokenizer_config.json", "vocab.json",
                                         "additional_chat_templates/tool_use.jinja"};
    char other[128];

    (void)state;
    snprintf(other, sizeof(other), "%s/t", temp);
    assert_int_equal(mkdir(other, 0755), 0);
    make_file(other, "tokenizer.json", "{\"b\": 2}");
    make_file(other, "chat_template.jinja", "{{ b }}");
    make_file(other, "README.md", "of the tokenizer");
    make_file(model, "tokenizer.json", "{\"a\": 1}");
    make_file(model, "tokenizer_config.json", "{}");
    make_file(model, "vocab.json", "{}");
    make_file(model, "README.md", "of the model");
    assert_int_equal(
        run_import(temp,
                   (struct tr_import_params){.model = model, .tokenizer = other, .dtype = -1}),
        0);
    assert_int_equal(export(), 0);
    make_file(model, "tokenizer.json", "{\"b\": 2}");
    make_file(model, "chat_template.jinja", "{{ b }}");
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_int_equal(unlink(make_path(model, others[i])), 0);
    assert_true(make_same(model, make_path(temp, "out")));
}

/* A buffer that grows with it does so within a key. */
static json_t *long_value(void)
{
    json_t *o = json_object();
    char key[128];

    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof(key), "%0100d", i);
        json_object_set_new(o, key, json_integer(i));
    }
    return o;
}

static void json_is_whole(void **state)
{
    json_t *value, *back = NULL;
    char path[128];
    int r = -1;

    (void)state;
    snprintf(path, sizeof(path), "%s/value.json", temp);
    value = long_value();
    for (int blocks = 0; r < 0; blocks++) {
        blocks_lack(blocks);
        r = tr_json_write(path, value);
        blocks_lack(-1);
        assert_int_equal(make_exists(temp, "value.json"), r == 0);
    }
    assert_int_equal(tr_json_read(path, 1 << 20, &back), 0);
    assert_true(json_equal(value, back));
    json_decref(back);
    r = -1;
    for (int blocks = 0; r < 0; blocks++) {
        blocks_lack(blocks);
        r = tr_json_read(path, 1 << 20, &back);
        blocks_lack(-1);
        if (blocks == 0) /* later it may look like a mistake in the text */
            assert_refused(r, "value.json: out of memory");
    }
    json_decref(value);
    json_decref(back);
}

/* A copy of an object with a list in it, behind more than either began with room for. */
static char *built(void *arg)
{
    json_t *o = json_object(), *list = json_array(), *copy;
    char key[16], *text;

    (void)arg;
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof(key), "%d", i);
        tr_json_append(&list, json_integer(i));
        tr_json_add(&o, key, json_integer(i));
    }
    tr_json_add(&o, "list", tr_json_copy(list));
    copy = tr_json_copy(o);
    text = list && copy ? tr_json_text(copy, 0) : NULL;
    json_decref(list);
    json_decref(o);
    json_decref(copy);
    return text;
}

static void what_is_built_is_whole(void **state)
{
    json_t *o = json_object();

    (void)state;
    assert_true(blocks_whole(built, NULL, 0) > 160); /* a number, or a key and a number, each */
    tr_json_add(&o, "text", json_string("\xff"));
    assert_null(o);
    tr_json_add(&o, "number", json_integer(1));
    assert_null(o);
}

/* Whichever block is missing: what was written describes the model, or nothing was. */
static void what_is_kept_is_whole(void **state)
{
    const char *folder = make_path(temp, "r-source"), *file = make_path(folder, TR_KEEP_FILE);
    struct tr_import_params p = {
        .model = model, .dtype = -1, .lora = {.rank = 2, .targets = 1, .alpha = 4}};
    struct tr_kept *k, *back;
    int used = 1, whole = 0;

    (void)state;
    assert_int_equal(run_import(temp, p), 0);
    assert_int_equal(tr_keep_open(&k, folder), 0);
    for (int blocks = 0; used; blocks++) {
        int r;

        unlink(file);
        blocks_lack(blocks);
        r = tr_keep_write(folder, k->model, &k->shards, NULL, "store");
        used = blocks_left < 0;
        blocks_lack(-1);
        assert_int_equal(access(file, F_OK) == 0, r == 0);
        if (r < 0)
            continue;
        assert_int_equal(tr_keep_open(&back, folder), 0);
        assert_int_equal(back->model->lora.rank, 2);
        assert_non_null(back->sums);
        tr_keep_close(back);
        whole++;
    }
    assert_true(whole > 0);
    tr_keep_close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folders_are_read_to_their_end, fresh, clean_temp),
        cmocka_unit_test_setup_teardown(files_are_looked_at, fresh, clean_temp),
        cmocka_unit_test_setup_teardown(names_are_text, fresh, clean_temp),
        cmocka_unit_test_setup_teardown(tokenizer_is_the_runs, fresh, clean_temp),
        cmocka_unit_test(what_is_built_is_whole),
        cmocka_unit_test_setup_teardown(json_is_whole, fresh, clean_temp),
        cmocka_unit_test_setup_teardown(what_is_kept_is_whole, fresh, clean_temp),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
