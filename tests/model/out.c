/* SPDX-License-Identifier: Apache-2.0
 *
 * What takes the place of an empty folder: it is as open to others as that was, and where nothing
 * can take a place this is said before anything is written.
 */
#include "src/checkpoint/out_folder.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/model/test.h"
#include "tests/model/temp.h"
#include "tests/support/entries.h"

static struct stat look(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st;
}

/* From the first byte on, not only at the end. */
static void it_is_as_open_as_before(void **state)
{
    static const mode_t modes[] = {0700, 0750, 0777, 02770};
    struct tr_out_folder o;
    char out[128];

    (void)state;
    snprintf(out, sizeof(out), "%s/out", temp);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct stat before;

        assert_int_equal(mkdir(out, 0700), 0);
        assert_int_equal(chmod(out, modes[i]), 0);
        before = look(out);
        assert_int_equal(tr_out_folder_begin(&o, out), 0);
        assert_int_equal(look(o.tmp).st_mode, before.st_mode);
        make_file(o.tmp, "file", "x");
        assert_int_equal(tr_out_folder_end(&o, 0), 0);
        assert_true(make_exists(out, "file"));
        assert_int_equal(look(out).st_mode, before.st_mode);
        assert_int_equal(look(out).st_gid, before.st_gid);
        make_clean(out);
    }
}

/* One of another group, which only who belongs to that, or root, can make. */
static void it_is_of_the_same_group(void **state)
{
    struct tr_out_folder o;
    char out[128];

    (void)state;
    snprintf(out, sizeof(out), "%s/out", temp);
    assert_int_equal(mkdir(out, 0750), 0);
    if (chown(out, (uid_t)-1, 1) < 0) {
        print_message("skipped: a folder of another group needs more rights\n");
        skip();
    }
    assert_int_equal(tr_out_folder_begin(&o, out), 0);
    assert_int_equal(tr_out_folder_end(&o, 0), 0);
    assert_int_equal(look(out).st_gid, 1);
    assert_int_equal(look(out).st_mode & 0777, 0750);
}

/* A disk's root is an empty folder like others, but for this. */
static void a_mounted_folder_is_refused(void **state)
{
    struct tr_out_folder o;
    char out[128];

    (void)state;
    snprintf(out, sizeof(out), "%s/out", temp);
    assert_int_equal(mkdir(out, 0755), 0);
    if (mount("none", out, "tmpfs", 0, "size=1m") < 0) {
        print_message("skipped: mounting a disk needs more rights\n");
        skip();
    }
    if (tr_out_folder_begin(&o, out) == 0) {
        tr_out_folder_end(&o, -EIO);
        umount(out);
        fail_msg("began in the place of a mounted folder");
    }
    umount(out);
    assert_refused(-1, "out: something is mounted there");
    assert_int_equal(count_entries(temp), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh_temp, clean_temp)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_as_open_as_before),
        TEST(it_is_of_the_same_group),
        TEST(a_mounted_folder_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
