/* SPDX-License-Identifier: Apache-2.0
 *
 * A folder that cannot be read to its end is an error wherever its files are copied: an import and
 * an export of half of them would both look whole.
 */
#include "tests/model/run.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

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

static int fresh(void **state)
{
    struct make_folder f;

    (void)state;
    make_temp(temp);
    make_table(&f, &make_small);
    snprintf(model, sizeof(model), "%s/m", temp);
    make_write(&f, model);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folders_are_read_to_their_end, fresh, clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
