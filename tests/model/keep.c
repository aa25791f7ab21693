/* SPDX-License-Identifier: Apache-2.0
 *
 * A folder that cannot be read to its end, or whose files cannot be looked at, is an error wherever
 * they are copied: an import and an export of half of them would both look whole.
 */
#include "tests/model/run.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static char temp[64];
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

static int clean(void **state)
{
    (void)state;
    make_clean(temp);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folders_are_read_to_their_end, fresh, clean),
        cmocka_unit_test_setup_teardown(files_are_looked_at, fresh, clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
