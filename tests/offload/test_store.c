/* SPDX-License-Identifier: Apache-2.0
 *
 * The store's folder: made whole or not at all, locked, opened at the newest whole commit, and
 * every damage named.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "tests/offload/harness.h"
#include "tests/offload/io_faulty.h"

static const struct shape small = {
    .n_spans = 5, .n_pools = 2, .max_pieces = 4, .max_bytes = 9000, .seed = 1};

static void commit_version(struct tr_store *s, uint64_t version, const char *payload)
{
    const struct tr_layout *l = tr_store_layout(s);
    char *buf = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);

    for (uint32_t i = 0; i < l->n_pieces; i++) {
        fill_bytes(buf, l->pieces[i].bytes, version * 1000003 + i);
        assert_ok(tr_store_write_piece(s, i, buf));
    }
    assert_ok(tr_store_commit(s, payload, strlen(payload)));
    tr_free_pages(TR_MEM_IO, buf, TR_PIECE_BYTES);
}

static void expect_version(struct tr_store *s, uint64_t version)
{
    const struct tr_layout *l = tr_store_layout(s);
    char *got = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES), *want = malloc(TR_PIECE_BYTES);

    for (uint32_t i = 0; i < l->n_pieces; i++) {
        fill_bytes(want, l->pieces[i].bytes, version * 1000003 + i);
        assert_ok(tr_store_read_piece(s, i, got));
        assert_memory_equal(got, want, l->pieces[i].bytes);
    }
    tr_free_pages(TR_MEM_IO, got, TR_PIECE_BYTES);
    free(want);
}

static void expect_payload(struct tr_store *s, uint64_t sequence, const char *text)
{
    char buf[TR_PAYLOAD_BYTES];
    size_t n;

    assert_int_equal(tr_store_payload(s, buf, sizeof(buf), &n), sequence);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(buf, text, n);
}

static void create_and_open(void **state)
{
    char *folder = test_folder();
    struct tr_layout l;
    struct tr_store *s, *other;
    char uuid[64];

    (void)state;
    test_layout(&l, &small);
    s = test_store(folder, &l, 2, NULL);
    snprintf(uuid, sizeof(uuid), "%s", tr_store_uuid(s));
    expect_version(s, 0);
    expect_error(tr_store_open(&other, folder, TR_STORE_READ), -EBUSY, folder);
    expect_error(tr_store_create(&other, folder, &l, 2), -EEXIST, folder);
    tr_store_close(s);

    assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
    assert_ok(tr_store_open(&other, folder, TR_STORE_READ)); /* readers share it */
    assert_string_equal(tr_store_uuid(s), uuid);
    assert_int_equal(tr_store_generations(s), 2);
    assert_int_equal(tr_store_layout(s)->n_pieces, l.n_pieces);
    assert_string_equal(tr_store_layout(s)->pieces[3].name, l.pieces[3].name);
    expect_payload(s, 1, "start");
    expect_version(s, 0);
    expect_error(tr_store_commit(s, "x", 1), -EROFS, "reading");
    tr_store_close(s);
    expect_error(tr_store_open(&s, folder, TR_STORE_WRITE), -EBUSY, folder);
    tr_store_close(other);
    tr_layout_free(&l);
}

/* What another host has locked: of the folder's lock it knows nothing. */
static void other_host(void **state)
{
    char *folder = test_folder(), path[512];
    struct tr_layout l;
    struct tr_store *s;
    int fd;

    (void)state;
    test_layout(&l, &small);
    tr_store_close(test_store(folder, &l, 2, NULL));
    snprintf(path, sizeof(path), "%s/gen0", folder);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_SH), 0);
    assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
    tr_store_close(s);
    expect_error(tr_store_open(&s, folder, TR_STORE_WRITE), -EBUSY, "another host");
    assert_int_equal(flock(fd, LOCK_EX), 0);
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EBUSY, "another host");
    assert_int_equal(flock(fd, LOCK_UN), 0);
    assert_ok(tr_store_open(&s, folder, TR_STORE_WRITE));
    assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), -1);
    tr_store_close(s);
    close(fd);
    tr_layout_free(&l);
}

/* Invariant 3, the synchronous way: the commit before stays whole until the next one is made. */
static void two_generations(void **state)
{
    char *folder = test_folder(), *page = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &small);
    s = test_store(folder, &l, 2, NULL);
    for (uint32_t i = 0; i < l.n_pieces; i++)
        assert_ok(tr_store_write_piece(s, i, page)); /* never committed */
    tr_store_close(s);
    assert_ok(tr_store_open(&s, folder, TR_STORE_WRITE));
    expect_version(s, 0);
    commit_version(s, 1, "one");
    commit_version(s, 2, "two");
    tr_store_close(s);
    assert_ok(tr_store_open(&s, folder, TR_STORE_WRITE));
    expect_payload(s, 3, "two");
    expect_version(s, 2);
    /* Half a span in the other generation is no state. */
    for (uint32_t i = 0; i < l.n_spans; i++)
        if (l.spans[i].n_pieces > 1) {
            assert_ok(tr_store_write_piece(s, l.spans[i].first_piece, page));
            break;
        }
    expect_error(tr_store_commit(s, "x", 1), -EINVAL, "not written");
    tr_store_close(s);
    tr_layout_free(&l);
    tr_free_pages(TR_MEM_IO, page, TR_PIECE_BYTES);
}

/* A piece that is left is zeros, checksum and all; and no piece is that holds anything. */
static void left_as_made(void **state)
{
    char *folder = test_folder(), *zeros = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    char *page = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    uint64_t damaged;
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &small);
    assert_ok(tr_store_create(&s, folder, &l, 2));
    memset(page, 7, TR_PIECE_BYTES);
    for (uint32_t i = 0; i < l.n_pieces; i++)
        assert_ok(i % 3 ? tr_store_leave_piece(s, i, zeros) : tr_store_write_piece(s, i, page));
    expect_error(tr_store_leave_piece(s, 0, zeros), -EINVAL, "as it was made");
    assert_ok(tr_store_commit(s, "x", 1));
    expect_error(tr_store_leave_piece(s, 1, zeros), -EINVAL, "as it was made");
    tr_store_close(s);
    assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
    assert_ok(tr_store_verify(s, NULL, NULL, &damaged));
    assert_int_equal(damaged, 0);
    for (uint32_t i = 0; i < l.n_pieces; i++) {
        assert_ok(tr_store_read_piece(s, i, page));
        assert_int_equal(page[0], i % 3 ? 0 : 7);
    }
    tr_store_close(s);
    tr_layout_free(&l);
    tr_free_pages(TR_MEM_IO, page, TR_PIECE_BYTES);
    tr_free_pages(TR_MEM_IO, zeros, TR_PIECE_BYTES);
}

/* The newest record is torn: the one before counts; both torn: refused. */
static void torn_commit(void **state)
{
    char *folder = test_folder();
    struct tr_layout l;
    struct tr_store *s;
    uint64_t damaged;

    (void)state;
    test_layout(&l, &small);
    s = test_store(folder, &l, 2, NULL);
    commit_version(s, 1, "one");
    tr_store_close(s);
    flip_byte(folder, "commit0", 4097); /* sequence 2 lies in commit0 */
    assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
    expect_payload(s, 1, "start");
    expect_version(s, 0);
    assert_ok(tr_store_verify(s, NULL, NULL, &damaged));
    assert_int_equal(damaged, 1);
    tr_store_close(s);
    flip_byte(folder, "commit1", 50);
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EBADMSG, "both commit records");
    tr_layout_free(&l);
}

/* Bytes of a record's file, and what is said while they are there; n 0: to its end. */
struct wrong_bytes {
    const char *name;
    size_t at, n;
    int byte, code;
    const char *words;
};

static void with_bytes(const char *folder, const struct wrong_bytes *w)
{
    char *path = tr_path(folder, w->name), was[16384], is[16384];
    int fd = open(path, O_RDWR);
    ssize_t all = pread(fd, was, sizeof(was), 0);
    struct tr_store *s;

    assert_true(all > 0 && all < (ssize_t)sizeof(was));
    memcpy(is, was, sizeof(is));
    memset(is + w->at, w->byte, w->n ? w->n : (size_t)all - w->at);
    assert_int_equal(pwrite(fd, is, (size_t)all, 0), all);
    assert_int_equal(fsync(fd), 0);
    for (enum tr_store_mode mode = TR_STORE_READ; mode <= TR_STORE_WRITE; mode++)
        expect_error(tr_store_open(&s, folder, mode), w->code, w->words);
    assert_int_equal(pwrite(fd, was, (size_t)all, 0), all);
    assert_int_equal(fsync(fd), 0);
    close(fd);
    tr_free(TR_MEM_MISC, path);
}

static void change_places(const char *folder)
{
    char *zero = tr_path(folder, "commit0"), *one = tr_path(folder, "commit1");
    char *aside = tr_path(folder, "aside");

    assert_int_equal(rename(zero, aside), 0);
    assert_int_equal(rename(one, zero), 0);
    assert_int_equal(rename(aside, one), 0);
    tr_free(TR_MEM_MISC, zero);
    tr_free(TR_MEM_MISC, one);
    tr_free(TR_MEM_MISC, aside);
}

/* A store that was being removed when its process was killed: one record or both have no bytes. */
static void empty_records(const char *folder)
{
    static const char *const names[] = {"commit1", "commit0"};
    char *path[2], was[2][16384];
    ssize_t n[2];
    struct tr_store *s;

    for (int i = 0; i < 2; i++) {
        int fd;

        path[i] = tr_path(folder, names[i]);
        fd = open(path[i], O_RDONLY);
        n[i] = pread(fd, was[i], sizeof(was[i]), 0);
        close(fd);
        assert_int_equal(truncate(path[i], 0), 0);
        for (enum tr_store_mode mode = TR_STORE_READ; mode <= TR_STORE_WRITE; mode++)
            expect_error(tr_store_open(&s, folder, mode), i ? -ENODATA : -EBADMSG,
                         i ? "no commit yet" : "commit0: damaged");
    }
    for (int i = 0; i < 2; i++) {
        int fd = open(path[i], O_WRONLY);

        assert_int_equal(pwrite(fd, was[i], (size_t)n[i], 0), n[i]);
        close(fd);
        tr_free(TR_MEM_MISC, path[i]);
    }
}

/* From the import to the next commit there is one record. What a crash of its write may leave is an
 * import that was cut off; all else is damage, and is not discarded. */
static void only_record(void **state)
{
    static const struct wrong_bytes cases[] = {
        {"commit1", 0, 512, 0, -ENODATA, "no commit yet"},
        {"commit1", 512, 512, 0x5a, -ENODATA, "no commit yet"},
        {"commit1", 4096, 0, 0, -ENODATA, "no commit yet"},
        {"commit1", 0, 0, 0, -ENODATA, "no commit yet"},
        {"commit1", 60, 8, 0xa7, -EBADMSG, "commit1: damaged, and the only commit record"},
        {"commit1", 16, 1, 3, -EBADMSG, "commit1: damaged"}, /* the first commit is no third */
    };
    /* Which holds the second commit, when the first one is durable. */
    static const struct wrong_bytes other = {"commit0", 0, 512, 0, -EBADMSG, "commit0: damaged"};
    char *folder = test_folder(), *one = tr_path(folder, "commit1");
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &small);
    tr_store_close(test_store(folder, &l, 2, NULL));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        with_bytes(folder, &cases[i]);
    flip_byte(folder, "commit1", 60);
    expect_error(tr_store_discard(folder), -EBADMSG, "commit1: damaged");
    flip_byte(folder, "commit1", 60);
    change_places(folder);
    with_bytes(folder, &other);
    assert_int_equal(truncate(one, 100), 0); /* where no record is as yet */
    change_places(folder);
    empty_records(folder);
    assert_ok(tr_store_open(&s, folder, TR_STORE_WRITE));
    expect_version(s, 0);
    assert_true(tr_store_torn(s) && tr_store_torn_damaged(s));
    commit_version(s, 1, "one"); /* makes it as long as it was */
    tr_store_close(s);
    assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
    expect_payload(s, 2, "one");
    assert_null(tr_store_torn(s));
    tr_store_close(s);
    tr_free(TR_MEM_MISC, one);
    tr_layout_free(&l);
}

/* Version 1 over version 0, all of it by this table. */
static int write_version(const char *folder, const struct tr_io_hook *hook)
{
    char *buf = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    struct tr_store *s = NULL;
    int r = tr_store_open_hooked(&s, folder, TR_STORE_WRITE, hook), again;

    for (uint32_t i = 0; r == 0 && i < tr_store_layout(s)->n_pieces; i++) {
        fill_bytes(buf, tr_store_layout(s)->pieces[i].bytes, 1000003 + i);
        r = tr_store_write_piece(s, i, buf);
    }
    if (r == 0)
        r = tr_store_commit(s, "one", 3);
    if (s && r < 0) /* writing is over, reading goes on by another table */
        assert_int_equal(tr_store_read_piece(s, 0, buf), 0);
    tr_free_pages(TR_MEM_IO, buf, TR_PIECE_BYTES);
    if (!s)
        return r;
    again = r < 0 ? tr_store_commit(s, "one", 3) : 0;
    tr_store_close(s);
    return again == r ? r : tr_error(-EILSEQ, "%d, and then %d", r, again);
}

/* The table breaks down, at each operation in turn: none is taken for done, nothing more is written
 * then, and the store stands at the last commit or, where that was the record's sync, at this. */
static void broken_table(void **state)
{
    struct faulty f = {
        .fail = FAULTY_BROKEN, .fail_op = TR_IO_OPS, .fail_file = FAULTY_ANY_FILE, .seed = 1};
    struct tr_io_hook hook = {.wrap = faulty_wrap, .arg = &f};
    char payload[TR_PAYLOAD_BYTES];
    struct tr_layout l;
    int r = -EBADR;

    (void)state;
    test_layout(&l, &small);
    for (; r < 0; f.fail_after++) {
        char *folder = test_folder();
        struct tr_store *s = test_store(folder, &l, 2, NULL);

        tr_store_close(s);
        f.seen = 0;
        r = write_version(folder, &hook);
        if (r < 0)
            expect_error(r, -EBADR, folder);
        assert_int_equal(r<0, f.seen> f.fail_after);
        assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
        expect_version(s, tr_store_payload(s, payload, sizeof(payload), NULL) - 1);
        tr_store_close(s);
    }
    assert_true(f.fail_after > 4 + 2 + l.n_pieces);
    tr_layout_free(&l);
}

/* A record that cannot be read is passed over like one that is torn, and the next commit is written
 * over it; one that could not be read by chance is read again. Nothing is taken for an import that
 * was cut off. */
static void unreadable_record(void **state)
{
    struct faulty f = {.fail = -EIO, .fail_op = TR_IO_READ, .seed = 1};
    struct tr_io_hook hook = {.wrap = faulty_wrap, .arg = &f};
    char *folder = test_folder();
    struct tr_layout l;
    struct tr_store *s;
    uint64_t damaged;

    (void)state;
    test_layout(&l, &small);
    s = test_store(folder, &l, 2, NULL);
    commit_version(s, 1, "one");
    tr_store_close(s);
    for (f.fail_file = TR_FILE_COMMIT0; f.fail_file <= TR_FILE_COMMIT1; f.fail_file++) {
        f.fail_always = 1;
        assert_ok(tr_store_open_hooked(&s, folder, TR_STORE_READ, &hook));
        expect_payload(s, f.fail_file == TR_FILE_COMMIT0 ? 1 : 2,
                       f.fail_file == TR_FILE_COMMIT0 ? "start" : "one");
        assert_non_null(strstr(tr_store_torn(s), tr_store_names[f.fail_file]));
        assert_ok(tr_store_verify(s, NULL, NULL, &damaged));
        assert_int_equal(damaged, 1);
        tr_store_close(s);
        f.fail_always = 0;
        f.seen = 0;
        assert_ok(tr_store_open_hooked(&s, folder, TR_STORE_READ, &hook));
        expect_payload(s, 2, "one");
        assert_null(tr_store_torn(s));
        tr_store_close(s);
    }
    f.fail_file = TR_FILE_COMMIT0;
    f.fail_always = 1;
    assert_ok(tr_store_open_hooked(&s, folder, TR_STORE_WRITE, &hook));
    commit_version(s, 2, "two");
    tr_store_close(s);
    assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
    expect_payload(s, 2, "two");
    expect_version(s, 2);
    assert_null(tr_store_torn(s));
    tr_store_close(s);
    f.fail_file = FAULTY_ANY_FILE;
    expect_error(tr_store_open_hooked(&s, folder, TR_STORE_READ, &hook), -EBADMSG, "both commit");
    tr_layout_free(&l);
}

static char found_text[1024];

static void found(void *arg, const char *text)
{
    ++*(int *)arg;
    snprintf(found_text, sizeof(found_text), "%s", text);
}

/* Invariant 8: a flipped byte of any piece is found, and named by record, tensor and file. */
static void damaged_piece(void **state)
{
    char *folder = test_folder(), *page = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &small);
    s = test_store(folder, &l, 2, NULL);
    tr_store_close(s);
    for (uint32_t i = 0; i < l.n_pieces; i++) {
        const struct tr_span *span = &l.spans[tr_layout_span_of(&l, i)];
        uint64_t damaged, at = span->offset + l.pieces[i].offset + l.pieces[i].bytes - 1;
        int told = 0;

        flip_byte(folder, "gen0", at);
        assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
        expect_error(tr_store_read_piece(s, i, page), -EBADMSG, l.pieces[i].name);
        assert_non_null(strstr(tr_error_message(), "gen0"));
        assert_non_null(strstr(tr_error_message(), l.segments[span->segment].record));
        assert_ok(tr_store_verify(s, found, &told, &damaged));
        assert_int_equal(damaged, 1);
        assert_int_equal(told, 1);
        assert_non_null(strstr(found_text, l.pieces[i].name));
        tr_store_close(s);
        flip_byte(folder, "gen0", at);
    }
    tr_layout_free(&l);
    tr_free_pages(TR_MEM_IO, page, TR_PIECE_BYTES);
}

static void unfinished_import(void **state)
{
    char *slash;
    char *folder = test_folder(), *page = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    struct tr_layout l;
    struct tr_store *s, *other;

    (void)state;
    test_layout(&l, &small);
    assert_true(asprintf(&slash, "%s//", folder) > 0);
    assert_ok(tr_store_create(&s, slash, &l, 2));
    free(slash);
    assert_string_equal(tr_store_folder(s), folder);
    expect_error(tr_store_read_piece(s, 0, page), -ENODATA, "never written");
    assert_ok(tr_store_write_piece(s, 0, page));
    expect_error(tr_store_commit(s, "x", 1), -EINVAL, l.pieces[1].name);
    expect_error(tr_store_discard(folder), -EBUSY, folder);
    tr_store_close(s);
    expect_error(tr_store_open(&s, folder, TR_STORE_WRITE), -ENODATA, "import");
    assert_ok(tr_store_discard(folder));
    assert_int_equal(tr_folder_is_empty(folder), 1);
    s = test_store(folder, &l, 2, NULL); /* the empty folder is taken */
    tr_store_close(s);
    expect_error(tr_store_discard(folder), -EEXIST, "commit");
    assert_ok(tr_store_open(&other, folder, TR_STORE_READ));
    tr_store_close(other);
    tr_layout_free(&l);
    tr_free_pages(TR_MEM_IO, page, TR_PIECE_BYTES);
}

/* One generation: marked open from the first change to the next commit. */
static void one_generation(void **state)
{
    char *folder = test_folder(), *page = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &small);
    s = test_store(folder, &l, 1, NULL);
    tr_store_close(s);
    assert_ok(tr_store_open(&s, folder, TR_STORE_WRITE));
    expect_version(s, 0);
    assert_ok(tr_store_write_piece(s, 0, page));
    tr_store_close(s);
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EUCLEAN, "durability none");
    tr_remove_tree(folder);
    s = test_store(folder, &l, 1, NULL);
    commit_version(s, 1, "clean");
    tr_store_close(s);
    assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
    expect_payload(s, 3, "clean");
    expect_version(s, 1);
    tr_store_close(s);
    tr_layout_free(&l);
    tr_free_pages(TR_MEM_IO, page, TR_PIECE_BYTES);
}

/* A disk too small is told before anything is made; one that fills meanwhile leaves nothing. */
static void no_space(void **state)
{
    char *folder = test_folder();
    struct tr_layout l;
    struct tr_store *s;
    struct rlimit old, limit;

    (void)state;
    test_layout(&l, &small);
    l.spans[l.n_spans - 1].bytes = 1ull << 50;
    expect_error(tr_store_create(&s, folder, &l, 2), -ENOSPC, "needs 2251799");
    assert_int_equal(access(folder, F_OK), -1);
    l.spans[l.n_spans - 1].bytes = 1ull << 24;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit){1 << 20, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    expect_error(tr_store_create(&s, folder, &l, 2), -EFBIG, "allocate");
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(access(folder, F_OK), -1);
    assert_ok(tr_make_folder(folder));
    tr_layout_free(&l);
}

static char *json_path;

/* Replaces the first occurrence in store.json and expects the store to be refused. */
static void refuse_edit(const char *folder, const char *from, const char *to, int code,
                        const char *word)
{
    char *text, *at, *edited;
    struct tr_store *s;
    size_t n;

    assert_ok(tr_file_read(json_path, 1 << 20, &text, &n));
    at = strstr(text, from);
    assert_non_null(at);
    assert_true(asprintf(&edited, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    assert_ok(tr_file_write(json_path, edited, strlen(edited)));
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), code, word);
    assert_ok(tr_file_write(json_path, text, n));
    free(edited);
    tr_free(TR_MEM_TEXT, text);
}

/* Invariant 9: nothing in store.json is believed. */
static void hostile_json(void **state)
{
    char *folder = test_folder(), number[64], wrong[64];
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &small);
    tr_store_close(test_store(folder, &l, 2, NULL));
    json_path = tr_path(folder, "store.json");
    refuse_edit(folder, "\"version\": 1", "\"version\": 3", -ENOTSUP, "newer");
    refuse_edit(folder, "\"version\": 1", "\"version\": 2", -EINVAL, "folders");
    refuse_edit(folder, "\"generations\": 2", "\"generations\": 3", -EINVAL, "generations");
    refuse_edit(folder, "\"generations\": 2", "\"generations\": 1", -EINVAL, "layout");
    refuse_edit(folder, "tailrace store", "something else", -EINVAL, "not the description");
    refuse_edit(folder, "\"segment\": 1,", "\"segment\": 70000,", -EINVAL, "span 1");
    refuse_edit(folder, "\"pool\": 0,", "\"pool\": -1,", -EINVAL, "spans[0]");
    refuse_edit(folder, "\"from\": 0,", "\"from\": 9223372036854775807,", -EINVAL, "spans[0]");
    refuse_edit(folder, "\"tensor.1.0\"", "\"\"", -EINVAL, "spans[1]");
    refuse_edit(folder, "\"spans\"", "\"spams\"", -EINVAL, "missing");
    refuse_edit(folder, "\"kind\": \"params\"", "\"kind\": 7", -EINVAL, "segments[0]");
    refuse_edit(folder, "{", "[", -EINVAL, "JSON");
    snprintf(number, sizeof(number), "\"offset\": %llu,", (unsigned long long)l.spans[2].offset);
    snprintf(wrong, sizeof(wrong), "\"offset\": %llu,",
             (unsigned long long)l.spans[2].offset - TR_STORE_ALIGN);
    refuse_edit(folder, number, wrong, -EINVAL, "overlapping");
    snprintf(wrong, sizeof(wrong), "\"offset\": %llu,", (unsigned long long)l.spans[2].offset + 8);
    refuse_edit(folder, number, wrong, -EINVAL, "misaligned");
    assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
    tr_store_close(s);
    tr_free(TR_MEM_MISC, json_path);
    tr_layout_free(&l);
}

/* As many and as long names as make store.json longer than that of the largest models. */
static void long_json(void **state)
{
    static const struct shape many = {
        .n_spans = 1400, .n_pools = 1, .max_pieces = 15, .max_bytes = 1, .seed = 2};
    char *folder = test_folder(), *path = tr_path(folder, "store.json");
    struct tr_layout l;
    struct tr_store *s;
    struct stat st;

    (void)state;
    test_layout(&l, &many);
    for (uint32_t i = 0; i < l.n_pieces; i++) {
        tr_free(TR_MEM_MISC, l.pieces[i].name);
        l.pieces[i].name = tr_alloc(TR_MEM_MISC, 1025);
        memset(l.pieces[i].name, 1, 1020); /* six characters each in JSON */
        snprintf(l.pieces[i].name + 1020, 5, "%u", i % 10000);
    }
    assert_ok(tr_store_create(&s, folder, &l, 1));
    tr_store_close(s);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size > 64 << 20);
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -ENODATA, "import");
    assert_ok(tr_store_discard(folder));
    tr_free(TR_MEM_MISC, path);
    tr_layout_free(&l);
}

/* What its reader would refuse is not written. */
static void json_beyond_limit(void **state)
{
    char *folder = test_folder(), *path = tr_path(folder, "x.json");
    json_t *o = json_pack("{s:s}", "key", "0123456789"); /* 21 characters and a newline */

    (void)state;
    assert_ok(tr_make_folder(folder));
    expect_error(tr_json_write_line(path, o, 21), -EFBIG, "x.json");
    assert_int_equal(tr_folder_is_empty(folder), 1);
    assert_ok(tr_json_write_line(path, o, 22));
    json_decref(o);
    assert_ok(tr_json_read(path, 22, &o));
    json_decref(o);
    tr_free(TR_MEM_MISC, path);
}

static void wrong_files(void **state)
{
    static const char *const names[] = {"gen0", "gen1", "commit0", "commit1"};
    char *folder = test_folder();
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    test_layout(&l, &small);
    tr_store_close(test_store(folder, &l, 2, NULL));
    for (int i = 0; i < 4; i++) {
        char *path = tr_path(folder, names[i]), *aside = tr_path(folder, "aside");
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, st.st_size - 1), 0);
        if (i < 3) {
            uint64_t damaged; /* generation 0 is the one that is named, by the record in commit1 */

            assert_ok(tr_store_open(&s, folder, TR_STORE_READ));
            assert_true(i < 2 ? !tr_store_torn(s) : !strcmp(tr_store_torn(s), path));
            assert_ok(tr_store_verify(s, NULL, NULL, &damaged));
            assert_int_equal(damaged, i != 1);
            tr_store_close(s);
        } else {
            expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EBADMSG, "the only commit");
        }
        assert_int_equal(truncate(path, st.st_size + 4096), 0);
        expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EINVAL, "layout says");
        assert_int_equal(truncate(path, st.st_size), 0);
        assert_int_equal(rename(path, aside), 0);
        expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EINVAL, names[i]);
        expect_error(tr_store_discard(folder), -EINVAL, names[i]);
        assert_int_equal(symlink("aside", path), 0); /* never followed out of the folder */
        expect_error(tr_store_open(&s, folder, TR_STORE_READ), -ELOOP, names[i]);
        unlink(path);
        assert_int_equal(mkfifo(path, 0600), 0); /* and does not block */
        expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EINVAL, "not a regular file");
        expect_error(tr_store_open(&s, folder, TR_STORE_WRITE), -EINVAL, "not a regular file");
        unlink(path);
        assert_int_equal(rename(aside, path), 0);
        tr_free(TR_MEM_MISC, path);
        tr_free(TR_MEM_MISC, aside);
    }
    tr_layout_free(&l);
}

/* A store that lost its description is not taken for an import that was cut off. */
static void lost_json(void **state)
{
    char *folder = test_folder(), *json = tr_path(folder, "store.json");
    struct tr_layout l;
    struct tr_store *s;

    (void)state;
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -ENOENT, folder);
    test_layout(&l, &small);
    assert_ok(tr_store_create(&s, folder, &l, 2));
    tr_store_close(s);
    unlink(json);
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -ENODATA, "import");
    assert_ok(tr_store_discard(folder));
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -ENOENT, "store.json");
    tr_store_close(test_store(folder, &l, 2, NULL));
    unlink(json);
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EINVAL, "commits");
    expect_error(tr_store_discard(folder), -EINVAL, "commits");
    assert_int_equal(mkfifo(json, 0600), 0);
    expect_error(tr_store_open(&s, folder, TR_STORE_READ), -EINVAL, "not a regular file");
    assert_int_equal(tr_folder_is_empty(folder), 0);
    tr_free(TR_MEM_MISC, json);
    tr_layout_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_and_open),   cmocka_unit_test(other_host),
        cmocka_unit_test(two_generations),   cmocka_unit_test(left_as_made),
        cmocka_unit_test(broken_table),      cmocka_unit_test(unreadable_record),
        cmocka_unit_test(torn_commit),       cmocka_unit_test(only_record),
        cmocka_unit_test(damaged_piece),     cmocka_unit_test(unfinished_import),
        cmocka_unit_test(one_generation),    cmocka_unit_test(no_space),
        cmocka_unit_test(hostile_json),      cmocka_unit_test(long_json),
        cmocka_unit_test(json_beyond_limit), cmocka_unit_test(wrong_files),
        cmocka_unit_test(lost_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
