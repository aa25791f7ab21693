/* SPDX-License-Identifier: Apache-2.0
 *
 * Every class of malformed safetensors file that the reference knows, those that it lets pass, and
 * the traps of a shard index (invariant 9). Each is refused with the file and what is wrong.
 */
#include "tests/model/test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/safetensors.h"

/* ' in the headers stands for ". data: bytes behind the header. */
static const struct {
    const char *header;
    size_t data;
    const char *words;
} malformed[] = {
    {"", 0, "does not begin with '{'"},
    {"[]", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"{'a':", 0, "not valid JSON"},
    {"{} x", 0, "not valid JSON"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},'a':{'dtype':'F32','shape':[1],"
     "'data_offsets':[0,4]}}",
     4, "duplicate"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4],'dtype':'F32'}}", 4, "duplicate"},
    {"{'\xff':{}}", 0, "not valid JSON"},
    {"{'a\\u0000b':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}", 4, "not valid JSON"},
    {"{'a\\u001bb':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}", 4, "control characters"},
    {"{'':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}", 4, "name is empty"},
    {"{'a':[[[1]]]}", 0, "nested deeper"},
    {"{'a':[1]}", 0, "tensor a: exactly"},
    {"{'a':{'dtype':'F32','shape':[1]}}", 0, "tensor a: exactly"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4],'x':1}}", 4, "tensor a: exactly"},
    {"{'a':{'dtype':'F32','shape':[1],'offsets':[0,4]}}", 4, "tensor a: \"data_offsets\""},
    {"{'a':{'dtype':'F33','shape':[1],'data_offsets':[0,4]}}", 4,
     "tensor a: unknown dtype \"F33\""},
    {"{'a':{'dtype':1,'shape':[1],'data_offsets':[0,4]}}", 4, "tensor a: no \"dtype\""},
    {"{'a':{'dtype':'F32','shape':[-1],'data_offsets':[0,4]}}", 4, "tensor a: \"shape\""},
    {"{'a':{'dtype':'F32','shape':[1.0],'data_offsets':[0,4]}}", 4, "tensor a: \"shape\""},
    {"{'a':{'dtype':'F32','shape':{},'data_offsets':[0,4]}}", 4, "tensor a: \"shape\""},
    {"{'a':{'dtype':'F32','shape':[1,1,1,1,1,1,1,1,1],'data_offsets':[0,4]}}", 4, "\"shape\""},
    {"{'a':{'dtype':'F32','shape':[99999999999999999999],'data_offsets':[0,4]}}", 4, "too big"},
    {"{'a':{'dtype':'F32','shape':[4294967296,4294967296],'data_offsets':[0,0]}}", 0, "overflows"},
    {"{'a':{'dtype':'F32','shape':[9223372036854775807,2],'data_offsets':[0,4]}}", 4, "overflows"},
    {"{'a':{'dtype':'F4','shape':[1],'data_offsets':[0,1]}}", 1, "whole bytes"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0]}}", 4, "pair of integers"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4,8]}}", 4, "pair of integers"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[-4,0]}}", 4, "pair of integers"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,'4']}}", 4, "pair of integers"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[4,0]}}", 4, "[4, 0) end before they begin"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}", 3,
     "tensor a: data_offsets [0, 4) reach past the file's 3 bytes"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,4]}}", 4, "hold 4 bytes, dtype and shape"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}", 5, "1 bytes behind the last tensor"},
    {"{}", 7, "7 bytes behind the last tensor"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}}", 8,
     "tensor a: data_offsets [4, 8) leave"},
    {"{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},'b':{'dtype':'F32','shape':[1],"
     "'data_offsets':[4,8]}}",
     8, "tensor b: data_offsets [4, 8) overlap"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},'b':{'dtype':'F32','shape':[1],"
     "'data_offsets':[0,4]}}",
     4, "overlap"},
    {"{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},'b':{'dtype':'F32','shape':[1],"
     "'data_offsets':[8,12]}}",
     12, "tensor b: data_offsets [8, 12) leave a hole"},
    {"{'__metadata__':[]}", 0, "__metadata__ is not an object"},
    {"{'__metadata__':{'a':1}}", 0, "__metadata__: \"a\" is not a string"},
};

static char *quoted(const char *s)
{
    char *copy = strdup(s);

    for (char *p = copy; *p; p++)
        if (*p == '\'')
            *p = '"';
    return copy;
}

static void malformed_files_are_refused(void **state)
{
    char folder[64];

    (void)state;
    make_temp(folder);
    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
        char *header = quoted(malformed[i].header), words[256];
        const char *path = make_path(folder, "x.safetensors");
        struct tr_safetensors *s;

        make_safetensors(path, header, strlen(header), malformed[i].data);
        assert_refused(tr_safetensors_open_file(&s, path), malformed[i].words);
        assert_null(s);
        tr_safetensors_open_file(&s, path);
        snprintf(words, sizeof(words), "%s: ", path);
        assert_non_null(strstr(tr_error_message(), words)); /* and the file is named */
        free(header);
    }
    make_clean(folder);
}

static void lengths_are_checked_first(void **state)
{
    struct tr_safetensors *s;
    const char *path;
    char folder[64];

    (void)state;
    make_temp(folder);
    path = make_path(folder, "x.safetensors");
    make_safetensors(path, "{}", 3, 0);
    assert_refused(tr_safetensors_open_file(&s, path), "header of 3 bytes in a file of 10");
    make_safetensors(path, "{}", SIZE_MAX, 0);
    assert_refused(tr_safetensors_open_file(&s, path), "truncated, or not a safetensors file");
    make_safetensors(path, "{}", SIZE_MAX - 7, 0);
    assert_refused(tr_safetensors_open_file(&s, path), "truncated, or not a safetensors file");
    make_file(folder, "y.safetensors",
              "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    assert_refused(tr_safetensors_open_file(&s, make_path(folder, "y.safetensors")),
                   "git lfs pull");
    assert_int_equal(truncate(path, 7), 0);
    assert_refused(tr_safetensors_open_file(&s, path), "7 bytes: too short");
    assert_int_equal(truncate(path, 0), 0);
    assert_refused(tr_safetensors_open_file(&s, path), "0 bytes: too short");
    make_safetensors(path, "{}", 17 << 20, 0);
    assert_int_equal(truncate(path, 18 << 20), 0);
    assert_refused(tr_safetensors_open_file(&s, path), "at most 16777216 are read");
    assert_refused(tr_safetensors_open_file(&s, make_path(folder, "none")), "none: cannot open");
    assert_refused(tr_safetensors_open_file(&s, folder), "not a regular file");
    path = make_path(folder, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(tr_safetensors_open_file(&s, path),
                   "not a regular file"); /* and does not block */
    make_clean(folder);
}

static void whole_files_are_read(void **state)
{
    static const char header[] =
        "{'b':{'dtype':'I64','shape':[],'data_offsets':[8,16]},'__metadata__':{'format':'pt'},"
        "'a':{'dtype':'BF16','shape':[2,2],'data_offsets':[0,8]},"
        "'e':{'dtype':'F32','shape':[0,3],'data_offsets':[16,16]}}   ";
    char *text = quoted(header), folder[64];
    const struct tr_st_tensor *t;
    struct tr_safetensors *s;
    unsigned char buf[8];

    (void)state;
    make_temp(folder);
    make_safetensors(make_path(folder, "x.safetensors"), text, strlen(text), 16);
    assert_int_equal(tr_safetensors_open_file(&s, make_path(folder, "x.safetensors")), 0);
    assert_int_equal(s->n_tensors, 3);
    assert_string_equal(s->tensors[0].name, "a"); /* in the order of the data */
    assert_string_equal(json_string_value(json_object_get(s->shards[0].metadata, "format")), "pt");
    t = tr_safetensors_find(s, "a");
    assert_true(t->dtype == TR_BF16 && t->dims == 2 && t->shape[1] == 2 && t->bytes == 8);
    assert_int_equal(tr_safetensors_read(s, t, 2, buf, 6), 0);
    assert_int_equal(buf[5], 1);
    assert_refused(tr_safetensors_read(s, t, 4, buf, 5), "tensor a: read past its end");
    assert_refused(tr_safetensors_read(s, t, UINT64_MAX, buf, 2), "tensor a: read past its end");
    t = tr_safetensors_find(s, "b");
    assert_true(t->dtype == -1 && t->dims == 0 && t->offset == 8);
    assert_null(tr_safetensors_find(s, "c"));
    tr_safetensors_close(s);
    free(text);
    make_clean(folder);
}

static void a_changing_file_is_noticed(void **state)
{
    struct make_folder f;
    struct tr_safetensors *s;
    char folder[64];
    const char *model;
    char buf[64];

    (void)state;
    make_temp(folder);
    make_table(&f, &make_small);
    make_one_shard(&f);
    model = make_path(folder, "m");
    make_write(&f, model);
    assert_int_equal(tr_safetensors_open_folder(&s, model), 0);
    assert_int_equal(truncate(make_path(model, "model.safetensors"), 4096), 0);
    assert_refused(tr_safetensors_read(s, &s->tensors[0], 0, buf, 64), "changed while it was read");
    tr_safetensors_close(s);
    make_clean(folder);
}

static void a_file_written_while_it_is_read_is_noticed(void **state)
{
    struct make_folder f;
    struct tr_safetensors *s;
    const struct tr_st_tensor *last;
    char folder[64], buf[64];

    (void)state;
    make_temp(folder);
    make_table(&f, &make_small);
    make_write(&f, make_path(folder, "m"));
    assert_int_equal(tr_safetensors_open_folder(&s, make_path(folder, "m")), 0);
    last = &s->tensors[s->n_tensors - 1];
    assert_int_equal(tr_safetensors_unchanged(s), 0);
    assert_int_equal(tr_safetensors_read(s, &s->tensors[0], 0, buf, 64), 0);
    assert_int_equal(tr_safetensors_read(s, last, 0, buf, 64), 0);
    assert_int_equal(tr_safetensors_unchanged(s), 0);
    make_changed(tr_safetensors_path(s, last));
    assert_refused(tr_safetensors_unchanged(s), "00003.safetensors: changed while it was read");
    assert_refused(tr_safetensors_read(s, &s->tensors[0], 0, buf, 64), "changed while it was read");
    tr_safetensors_close(s);
    make_clean(folder);
}

static void shards_are_joined(void **state)
{
    struct make_folder f;
    struct tr_safetensors *s;
    char folder[64];

    (void)state;
    make_temp(folder);
    make_table(&f, &make_small);
    make_write(&f, make_path(folder, "m"));
    assert_int_equal(tr_safetensors_open_folder(&s, make_path(folder, "m")), 0);
    assert_int_equal(s->n_shards, 3);
    assert_int_equal(s->n_tensors, (uint32_t)f.n);
    assert_true(s->indexed && !s->note[0]);
    for (int i = 0; i < f.n; i++)
        assert_non_null(tr_safetensors_find(s, f.t[i].name));
    tr_safetensors_close(s);
    make_clean(folder);
}

#define FIRST "model-00001-of-00003.safetensors"

/* Each trap replaces a string in the index of a good folder. */
static const struct {
    const char *from, *to, *words;
} traps[] = {
    {"\"" FIRST "\"", "\"../" FIRST "\"", "its file is not a plain name"},
    {"\"" FIRST "\"", "\"/etc/passwd\"", "its file is not a plain name"},
    {"\"" FIRST "\"", "\"..\"", "its file is not a plain name"},
    {"\"" FIRST "\"", "\"\"", "its file is not a plain name"},
    {"\"" FIRST "\"", "\"tokenizer.json\"", "its file is not a plain name"},
    {"\"" FIRST "\"", "\"a\\u0000.safetensors\"", "not valid JSON"},
    {"\"" FIRST "\"", "\"a\\n.safetensors\"", "its file is not a plain name"},
    {"\"" FIRST "\"", "7", "its file is not a plain name"},
    {"\"" FIRST "\"", "\"none.safetensors\"", "none.safetensors: cannot open"},
    {"\"" FIRST "\"", "\"model-00002-of-00003.safetensors\"", "is not in model-00002"},
    {"\"model.norm.weight\"", "\"model.normal.weight\"", "tensor model.norm.weight of "},
    {"\"lm_head.weight\": \"" FIRST "\",", "", "tensor lm_head.weight of "},
    {"\"weight_map\"", "\"weight_mop\"", "no \"weight_map\""},
    {"\"weight_map\": {", "\"weight_map\": {}, \"x\": {", "no \"weight_map\""},
    {"\"lm_head.weight\"", "\"model.norm.weight\"", "duplicate"},
};

static void replace_in(const char *folder, const char *from, const char *to)
{
    char text[16384], changed[16384];
    FILE *in = fopen(make_path(folder, "model.safetensors.index.json"), "rb");
    size_t n = fread(text, 1, sizeof(text) - 1, in);
    char *at;

    fclose(in);
    text[n] = 0;
    at = strstr(text, from);
    assert_non_null(at);
    snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    make_file(folder, "model.safetensors.index.json", changed);
}

static void index_traps_are_refused(void **state)
{
    struct make_folder f;

    (void)state;
    make_table(&f, &make_small);
    for (size_t i = 0; i < sizeof(traps) / sizeof(traps[0]); i++) {
        struct tr_safetensors *s;
        char folder[64], model[80];

        make_temp(folder);
        snprintf(model, sizeof(model), "%s/m", folder);
        make_write(&f, model);
        replace_in(model, traps[i].from, traps[i].to);
        assert_refused(tr_safetensors_open_folder(&s, model), traps[i].words);
        make_clean(folder);
    }
}

static void a_tensor_in_two_shards_is_refused(void **state)
{
    struct make_folder f;
    struct tr_safetensors *s;
    char folder[64];

    (void)state;
    make_temp(folder);
    make_table(&f, &make_small);
    strcpy(make_find(&f, "model.norm.weight")->name, "lm_head.weight");
    make_write(&f, make_path(folder, "m"));
    replace_in(make_path(folder, "m"), "    \"lm_head.weight\": \"" FIRST "\",\n", "");
    assert_refused(tr_safetensors_open_folder(&s, make_path(folder, "m")),
                   "tensor lm_head.weight: is in ");
    make_clean(folder);
}

/* However many names an index gives to one file, no more of it is read than the index describes. */
static void files_of_too_many_tensors_are_not_opened(void **state)
{
    struct make_folder f;
    struct tr_safetensors *s;
    char folder[64], model[80], path[128];

    (void)state;
    make_temp(folder);
    make_table(&f, &make_small);
    make_one_shard(&f);
    snprintf(model, sizeof(model), "%s/m", folder);
    make_write(&f, model);
    snprintf(path, sizeof(path), "%s/a.safetensors", model);
    assert_int_equal(rename(make_path(model, "model.safetensors"), path), 0);
    make_file(model, "model.safetensors.index.json",
              "{\"weight_map\": {\"lm_head.weight\": \"a.safetensors\", \"model.norm.weight\": "
              "\"never-opened.safetensors\"}}");
    assert_refused(tr_safetensors_open_folder(&s, model), "a.safetensors is missing");
    make_clean(folder);
}

static void totals_that_are_wrong_are_noted(void **state)
{
    struct make_folder f;
    struct tr_safetensors *s;
    char folder[64];

    (void)state;
    make_temp(folder);
    make_table(&f, &make_small);
    make_write(&f, make_path(folder, "m"));
    replace_in(make_path(folder, "m"), "\"total_size\": ", "\"total_size\": 1");
    assert_int_equal(tr_safetensors_open_folder(&s, make_path(folder, "m")), 0);
    assert_non_null(strstr(s->note, "total_size"));
    tr_safetensors_close(s);
    make_clean(folder);
}

/* As the usual cache lays it out: links into another folder. */
static void links_are_followed(void **state)
{
    struct tr_safetensors *s;
    struct make_folder f;
    char folder[64], to[128], from[128];

    (void)state;
    make_temp(folder);
    make_table(&f, &make_small);
    make_write(&f, make_path(folder, "blobs"));
    assert_int_equal(mkdir(make_path(folder, "snapshot"), 0755), 0);
    for (int i = -1; i < 3; i++) {
        char name[64] = "model.safetensors.index.json";

        if (i >= 0)
            snprintf(name, sizeof(name), "model-%05d-of-00003.safetensors", i + 1);
        snprintf(to, sizeof(to), "../blobs/%s", name);
        snprintf(from, sizeof(from), "%s/snapshot/%s", folder, name);
        assert_int_equal(symlink(to, from), 0);
    }
    assert_int_equal(tr_safetensors_open_folder(&s, make_path(folder, "snapshot")), 0);
    assert_int_equal(s->n_tensors, (uint32_t)f.n);
    tr_safetensors_close(s);
    make_clean(folder);
}

static void folders_without_weights_say_why(void **state)
{
    struct tr_safetensors *s;
    struct make_folder f;
    char folder[64];

    (void)state;
    make_temp(folder);
    assert_refused(tr_safetensors_open_folder(&s, folder), "neither model.safetensors nor");
    make_file(folder, "pytorch_model.bin", "pickled");
    assert_refused(tr_safetensors_open_folder(&s, folder),
                   "only pickled weights (pytorch_model.bin), which are never read");
    make_table(&f, &make_small);
    make_write(&f, make_path(folder, "m"));
    make_file(make_path(folder, "m"), "model.safetensors", "");
    assert_refused(tr_safetensors_open_folder(&s, make_path(folder, "m")), "has both");
    assert_refused(tr_safetensors_open_folder(&s, make_path(folder, "none")),
                   "cannot open the folder");
    make_clean(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_files_are_refused),
        cmocka_unit_test(lengths_are_checked_first),
        cmocka_unit_test(whole_files_are_read),
        cmocka_unit_test(a_changing_file_is_noticed),
        cmocka_unit_test(a_file_written_while_it_is_read_is_noticed),
        cmocka_unit_test(shards_are_joined),
        cmocka_unit_test(index_traps_are_refused),
        cmocka_unit_test(a_tensor_in_two_shards_is_refused),
        cmocka_unit_test(files_of_too_many_tensors_are_not_opened),
        cmocka_unit_test(totals_that_are_wrong_are_noted),
        cmocka_unit_test(links_are_followed),
        cmocka_unit_test(folders_without_weights_say_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
