/* SPDX-License-Identifier: Apache-2.0
 *
 * A store in several folders: whatever is wrong with one of them is refused by its name, moving
 * them needs no more than naming them again, and what is not ours is left alone.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "tests/offload/harness.h"

#define N 3

static const struct shape shape = {
    .n_spans = 12, .n_pools = 2, .max_pieces = 4, .max_bytes = 9000, .seed = 1};

static char list[4096];

/* "a:b:c" of these folders. */
static const char *join(char *const *path, int n)
{
    list[0] = 0;
    for (int i = 0; i < n; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ":" : "", path[i]);
    return list;
}

struct made {
    struct tr_layout layout;
    char *path[N];
};

static void make(struct made *m)
{
    test_layout(&m->layout, &shape);
    for (int i = 0; i < N; i++)
        m->path[i] = test_folder();
    tr_store_close(test_store(join(m->path, N), &m->layout, 2, NULL));
}

static void expect_whole(const char *folders, const struct tr_layout *l)
{
    char *got = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES), *want = malloc(TR_PIECE_BYTES);
    struct tr_store *s;

    assert_ok(tr_store_open(&s, folders, TR_STORE_READ));
    for (uint32_t i = 0; i < l->n_pieces; i++) {
        fill_bytes(want, l->pieces[i].bytes, i);
        assert_ok(tr_store_read_piece(s, i, got));
        assert_memory_equal(got, want, l->pieces[i].bytes);
    }
    tr_store_close(s);
    tr_free_pages(TR_MEM_IO, got, TR_PIECE_BYTES);
    free(want);
}

static void refuse(char *const *path, int n, int code, const char *word)
{
    struct tr_store *s;

    expect_error(tr_store_open(&s, join(path, n), TR_STORE_READ), code, word);
    expect_error(tr_store_open(&s, join(path, n), TR_STORE_WRITE), code, word);
}

static void lists(void **state)
{
    static const char *const good[][2] = {
        {"/a", "/a"}, {"/a/:b//:/", "/a:b:/"}, {"/x\\:y:z", "/x\\:y:z"}, {"a\\b", "a\\b"}};
    static const char *const bad[] = {"", ":", "/a:", ":/a", "/a::/b", "1:2:3:4:5:6:7:8:9"};
    struct tr_folders f;
    char *text;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_ok(tr_folders_parse(&f, good[i][0]));
        text = tr_folders_join(&f, NULL);
        assert_string_equal(text, good[i][1]);
        tr_free(TR_MEM_MISC, text);
        tr_folders_free(&f);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(tr_folders_parse(&f, bad[i]), -EINVAL);
        tr_folders_free(&f);
    }
    assert_ok(tr_folders_parse(&f, "x:/y:z\\:"));
    text = tr_folders_join(&f, "/run:1");
    assert_string_equal(text, "/run\\:1/x:/y:/run\\:1/z\\:");
    tr_free(TR_MEM_MISC, text);
    tr_folders_free(&f);
    text = tr_folders_below("a:b/", "store");
    assert_string_equal(text, "a\\:b/store");
    tr_free(TR_MEM_MISC, text);
}

/* All the ways to name the wrong folders. */
static void named_wrongly(void **state)
{
    struct made m, other;
    char *alone = test_folder(), *gone;

    (void)state;
    make(&m);
    make(&other);
    tr_store_close(test_store(alone, &m.layout, 2, NULL));
    expect_whole(join(m.path, N), &m.layout);
    refuse(m.path, 2, -EINVAL, "has 3 folders, 2 are given");
    refuse((char *[]){alone, m.path[1], m.path[2]}, 3, -EINVAL, "has 1 folders, 3 are given");
    refuse((char *[]){m.path[0], m.path[2], m.path[1]}, 3, -EINVAL, "is folder 3 of the store");
    refuse((char *[]){m.path[1], m.path[0], m.path[2]}, 3, -EINVAL, "given as folder 1");
    refuse((char *[]){m.path[0], m.path[1], m.path[1]}, 3, -EINVAL, "given twice");
    refuse((char *[]){m.path[0], other.path[1], m.path[2]}, 3, -EINVAL, other.path[1]);
    refuse((char *[]){m.path[0], other.path[1], m.path[2]}, 3, -EINVAL, "another store");
    refuse((char *[]){m.path[0], m.path[1], alone}, 3, -EINVAL, "no folder of the store");
    gone = test_folder();
    assert_int_equal(rename(m.path[1], gone), 0);
    refuse(m.path, N, -EINVAL, m.path[1]);
    refuse(m.path, N, -EINVAL, "missing");
    expect_whole(join((char *[]){m.path[0], gone, m.path[2]}, N), &m.layout); /* moved */
    tr_layout_free(&m.layout);
    tr_layout_free(&other.layout);
}

/* Every folder is locked, not the first alone. */
static void locked(void **state)
{
    struct tr_store *s, *t;
    struct made m;

    (void)state;
    make(&m);
    for (int i = 0; i < N; i++) {
        int fd = open(m.path[i], O_RDONLY | O_DIRECTORY);

        assert_int_equal(flock(fd, LOCK_EX), 0);
        refuse(m.path, N, -EBUSY, m.path[i]);
        close(fd);
        assert_ok(tr_store_open(&s, join(m.path, N), TR_STORE_WRITE));
        fd = open(m.path[i], O_RDONLY | O_DIRECTORY);
        assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), -1);
        close(fd);
        tr_store_close(s);
    }
    assert_ok(tr_store_open(&s, join(m.path, N), TR_STORE_READ));
    assert_ok(tr_store_open(&t, join(m.path, N), TR_STORE_READ)); /* readers share them */
    tr_store_close(t);
    tr_store_close(s);
    tr_layout_free(&m.layout);
}

static void count_text(void *arg, const char *text)
{
    const struct made *m = arg;

    assert_non_null(strstr(text, m->path[1]));
    assert_non_null(strstr(text, "gen0"));
}

/* Damage is told with the folder and file it is in; so is a file that was cut. */
static void damaged(void **state)
{
    uint64_t n;
    struct tr_store *s;
    struct stat st, whole;
    struct made m;
    char *path;

    (void)state;
    make(&m);
    flip_byte(m.path[1], "gen0", 5000);
    assert_ok(tr_store_open(&s, join(m.path, N), TR_STORE_READ));
    assert_ok(tr_store_verify(s, count_text, &m, &n));
    assert_int_equal(n, 1);
    tr_store_close(s);
    path = tr_path(m.path[2], "gen1");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size + 1), 0);
    refuse(m.path, N, -EINVAL, path);
    assert_int_equal(truncate(path, st.st_size / 2), 0); /* damaged, but nothing names it yet */
    assert_ok(tr_store_open(&s, join(m.path, N), TR_STORE_WRITE));
    tr_store_close(s);
    assert_int_equal(stat(path, &whole), 0);
    assert_int_equal(whole.st_size, st.st_size);
    tr_free(TR_MEM_MISC, path);
    tr_layout_free(&m.layout);
}

static void refuse_edit(struct made *m, const char *from, const char *to, const char *word)
{
    char *path = tr_path(m->path[0], "store.json"), *text, *at, *edited;
    size_t n;

    assert_ok(tr_file_read(path, 1 << 20, &text, &n));
    at = strstr(text, from);
    assert_non_null(at);
    assert_true(asprintf(&edited, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    assert_ok(tr_file_write(path, edited, strlen(edited)));
    refuse(m->path, N, -EINVAL, word);
    assert_ok(tr_file_write(path, text, n));
    free(edited);
    tr_free(TR_MEM_TEXT, text);
    tr_free(TR_MEM_MISC, path);
}

/* Invariant 9. */
static void hostile_json(void **state)
{
    char *part, *text;
    struct made m;
    size_t n;

    (void)state;
    make(&m);
    refuse_edit(&m, "\"stripes\": [", "\"stripes\": [[0, 4096], ", "stripes");
    refuse_edit(&m, "\"stripes\": [[", "\"stripes\": [[7", "stripes");
    refuse_edit(&m, "\"stripes\": [[", "\"stripes\": [[-", "stripes");
    refuse_edit(&m, "\"stripes\": [", "\"stripes\": [[0, 9223372036854771712], ", "stripes");
    refuse_edit(&m, "\"stripes\"", "\"strips\"", "stripes");
    refuse_edit(&m, "\"folders\": 3", "\"folders\": -1", "folders");
    part = tr_path(m.path[1], "part.json");
    assert_ok(tr_file_read(part, 1 << 20, &text, &n));
    assert_ok(tr_file_write(part, "{}", 2));
    refuse(m.path, N, -EINVAL, part);
    assert_ok(tr_file_write(part, text, n));
    expect_whole(join(m.path, N), &m.layout);
    tr_free(TR_MEM_TEXT, text);
    tr_free(TR_MEM_MISC, part);
    tr_layout_free(&m.layout);
}

/* An import that was cut off is taken back from all folders, at whatever file it stopped; what
 * belongs to others stays. */
static void cut_off(void **state)
{
    static const char *const later[] = {"store.json", "gen1", "gen0", "part.json"};
    struct tr_layout l;
    struct tr_store *s;
    struct made other;

    (void)state;
    make(&other);
    test_layout(&l, &shape);
    for (size_t stop = 0; stop < 4; stop++) {
        char *path[N] = {test_folder(), test_folder(), test_folder()};

        assert_ok(tr_store_create_hooked(&s, join(path, N), &l, 2,
                                         &(struct tr_io_hook){.speed = (double[]){1, 2, 3}}));
        expect_error(tr_store_discard(join(path, N)), -EBUSY, path[0]);
        tr_store_close(s);
        for (size_t k = 0; k <= stop; k++) {
            char *name = tr_path(path[k ? 2 : 0], later[k]);

            unlink(name);
            tr_free(TR_MEM_MISC, name);
        }
        expect_error(tr_store_open(&s, join(path, N), TR_STORE_READ), -ENODATA, "import");
        expect_error(tr_store_discard(join((char *[]){path[0], path[1], other.path[2]}, N)),
                     -EINVAL, other.path[2]);
        assert_ok(tr_store_discard(join(path, N)));
        for (int i = 0; i < N; i++)
            assert_int_equal(tr_folder_is_empty(path[i]), 1);
    }
    expect_whole(join(other.path, N), &other.layout);
    tr_layout_free(&l);
    tr_layout_free(&other.layout);
}

static int removals_left = -1; /* until the process dies; -1: it does not */

/* In place of the C library's. */
int unlinkat(int fd, const char *name, int flags);
int unlinkat(int fd, const char *name, int flags)
{
    if (removals_left >= 0 && removals_left-- == 0)
        raise(SIGKILL);
    return (int)syscall(SYS_unlinkat, fd, name, flags);
}

/* Taking back an import may be cut off, too, anywhere: the next one takes back the rest. */
static void cut_off_twice(void **state)
{
    struct tr_layout l;
    struct tr_store *s;
    int status, n = 0, r;

    (void)state;
    test_layout(&l, &shape);
    do {
        char *path[N] = {test_folder(), test_folder(), test_folder()};
        char *record = tr_path(path[0], "commit1");
        pid_t child;
        int fd;

        assert_ok(tr_store_create_hooked(&s, join(path, N), &l, 2,
                                         &(struct tr_io_hook){.speed = (double[]){1, 2, 3}}));
        tr_store_close(s);
        fd = open(record, O_WRONLY);
        assert_int_equal(pwrite(fd, "torn", 4, 0), 4); /* the first commit was under way */
        close(fd);
        child = fork();
        if (child == 0) {
            removals_left = n;
            _exit(tr_store_discard(join(path, N)) != 0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        r = tr_store_discard(join(path, N));
        assert_true(r == 0 || r == -ENOENT); /* nothing was left */
        for (int i = 0; i < N; i++)
            assert_int_equal(tr_folder_is_empty(path[i]), 1);
        tr_free(TR_MEM_MISC, record);
        n++;
    } while (WIFSIGNALED(status));
    assert_true(n > 10 && WEXITSTATUS(status) == 0);
    tr_layout_free(&l);
}

/* Invariant 7, and nothing half made: if one folder cannot be used, all of them stay as they were.
 */
static void refused_whole(void **state)
{
    char *path[N] = {test_folder(), test_folder(), test_folder()}, *file;
    char *within = tr_path(path[0], "within");
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &shape);
    expect_error(tr_store_create(&s, join((char *[]){path[0], within}, 2), &l, 2), -EEXIST,
                 path[0]);
    assert_int_equal(access(path[0], F_OK), -1);
    assert_ok(tr_make_folder(path[2]));
    file = tr_path(path[2], "gen0");
    assert_ok(tr_file_write(file, "mine", 4));
    expect_error(tr_store_create(&s, join(path, N), &l, 2), -EEXIST, path[2]);
    unlink(file);
    l.spans[l.n_spans - 1].bytes = 1ull << 50;
    expect_error(tr_store_create(&s, join(path, N), &l, 2), -ENOSPC, "more folders");
    expect_error(tr_store_create(&s, join((char *[]){path[0], path[0]}, 2), &l, 2), -EINVAL,
                 "twice");
    assert_int_equal(access(path[0], F_OK), -1);
    assert_int_equal(access(path[1], F_OK), -1);
    assert_int_equal(tr_folder_is_empty(path[2]), 1);
    tr_free(TR_MEM_MISC, within);
    tr_free(TR_MEM_MISC, file);
    tr_layout_free(&l);
}

/* Without a speed given, each folder is measured: both are used, and no trace of it stays. */
static void measured(void **state)
{
    char *path[2] = {test_folder(), test_folder()};
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &shape);
    assert_ok(tr_store_create(&s, join(path, 2), &l, 1));
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t bytes;

        assert_string_equal(tr_store_folder_at(s, i, &bytes), path[i]);
        assert_true(bytes > 0 && bytes < tr_layout_bytes(&l));
        assert_false(tr_folder_has(path[i], TR_GAUGE_FILE));
        assert_false(tr_folder_has(path[i], "gen1"));
    }
    tr_store_close(s);
    tr_layout_free(&l);
}

/* The pages of a file that the page cache holds. */
static size_t cached_pages(const char *folder, const char *name)
{
    char *path = tr_path(folder, name);
    int fd = open(path, O_RDONLY);
    struct stat st;
    size_t n, cached = 0;
    unsigned char *there;
    void *p;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    n = ((size_t)st.st_size + 4095) / 4096;
    there = calloc(1, n);
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(mincore(p, (size_t)st.st_size, there), 0);
    for (size_t i = 0; i < n; i++)
        cached += there[i] & 1;
    munmap(p, (size_t)st.st_size);
    free(there);
    close(fd);
    tr_free(TR_MEM_MISC, path);
    return cached;
}

/* Without O_DIRECT: the same bytes, a remark that says why it is slower, and a page cache that does
 * not fill up with the store. */
static void without_direct(void **state)
{
    static const struct shape large = {
        .n_spans = 24, .n_pools = 1, .max_pieces = 3, .max_bytes = 3 << 20, .seed = 9};
    struct tr_io_hook hook = {.buffered = 1};
    char *path[2] = {test_folder(), test_folder()};
    char *buf = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &large);
    tr_store_close(test_store(join(path, 2), &l, 2, &hook));
    assert_ok(tr_store_open_hooked(&s, join(path, 2), TR_STORE_READ, &hook));
    assert_non_null(strstr(tr_store_remark(s), path[0]));
    assert_non_null(strstr(tr_store_remark(s), path[1]));
    assert_true(strstr(tr_store_remark(s), "O_DIRECT") || strstr(tr_store_remark(s), "memory"));
    for (uint32_t i = 0; i < l.n_pieces; i++)
        assert_ok(tr_store_read_piece(s, i, buf));
    for (int i = 0; i < 2 && !s->file[0].memory; i++) {
        size_t cached = cached_pages(path[i], "gen0");

        if (cached * 4096 > s->stripes.folder_bytes[i] / 4)
            fail_msg("%zu pages of %s stay in the page cache", cached, path[i]);
    }
    tr_store_close(s);
    tr_free_pages(TR_MEM_IO, buf, TR_PIECE_BYTES);
    expect_whole(join(path, 2), &l);
    tr_layout_free(&l);
}

/* Drives may have blocks larger than ours, which a file system tells whom asks. */
static int large_blocks;

int __real_statx(int fd, const char *path, int flags, unsigned mask, struct statx *st);
int __wrap_statx(int fd, const char *path, int flags, unsigned mask, struct statx *st);

int __wrap_statx(int fd, const char *path, int flags, unsigned mask, struct statx *st)
{
    int r = __real_statx(fd, path, flags, mask, st);

    if (r == 0 && large_blocks) {
        st->stx_mask |= STATX_DIOALIGN;
        st->stx_dio_mem_align = 512;
        st->stx_dio_offset_align = 16384;
    }
    return r;
}

static void without_small_blocks(void **state)
{
    char *path[2] = {test_folder(), test_folder()};
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &shape);
    large_blocks = 1;
    tr_store_close(test_store(join(path, 2), &l, 2, NULL));
    assert_ok(tr_store_open(&s, join(path, 2), TR_STORE_WRITE));
    large_blocks = 0;
    for (uint32_t i = 0; i < tr_file_count(2); i++)
        if (tr_store_has_file(s, i)) {
            assert_false(s->file[i].direct || fcntl(s->file[i].fd, F_GETFL) & O_DIRECT);
        }
    tr_store_close(s);
    expect_whole(join(path, 2), &l);
    tr_layout_free(&l);
}

/* There are file systems whose folders cannot be synced. */
static int no_folder_sync;

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
    struct stat st;

    if (!no_folder_sync || fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
        return __real_fsync(fd);
    errno = EINVAL;
    return -1;
}

static void without_folder_sync(void **state)
{
    char *path[2] = {test_folder(), test_folder()};
    struct tr_layout l;

    (void)state;
    test_layout(&l, &shape);
    no_folder_sync = 1;
    tr_store_close(test_store(join(path, 2), &l, 2, NULL));
    no_folder_sync = 0;
    expect_whole(join(path, 2), &l);
    tr_layout_free(&l);
}

/* A store in memory works and says what that means; one on a drive says nothing. */
static void in_memory(void **state)
{
    char *kept = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL, *path[2];
    struct statfs fs;
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    if (statfs("/dev/shm", &fs) < 0 || fs.f_type != TMPFS_MAGIC || access("/dev/shm", W_OK) < 0) {
        print_message("skipped: a store in memory, for /dev/shm is none\n");
        skip();
    }
    path[0] = test_folder();
    setenv("TMPDIR", "/dev/shm", 1);
    path[1] = test_folder();
    if (kept)
        setenv("TMPDIR", kept, 1);
    else
        unsetenv("TMPDIR");
    test_layout(&l, &shape);
    tr_store_close(test_store(join(path, 2), &l, 2, NULL));
    assert_ok(tr_store_open(&s, join(path, 2), TR_STORE_READ));
    assert_non_null(strstr(tr_store_remark(s), path[1]));
    assert_non_null(strstr(tr_store_remark(s), "cgroup"));
    if (!s->file[0].memory && s->file[0].direct)
        assert_null(strstr(tr_store_remark(s), path[0]));
    tr_store_close(s);
    expect_whole(join(path, 2), &l);
    tr_layout_free(&l);
    free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(named_wrongly),
        cmocka_unit_test(locked),
        cmocka_unit_test(damaged),
        cmocka_unit_test(hostile_json),
        cmocka_unit_test(cut_off),
        cmocka_unit_test(cut_off_twice),
        cmocka_unit_test(refused_whole),
        cmocka_unit_test(measured),
        cmocka_unit_test(without_direct),
        cmocka_unit_test(without_small_blocks),
        cmocka_unit_test(without_folder_sync),
        cmocka_unit_test(in_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
