/* SPDX-License-Identifier: Apache-2.0
 *
 * test_io [uring]: the I/O engines and the queue above them, one suite played on each. The engine
 * of threads and what is common; or io_uring, and exit status 77 where it is refused.
 */
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "offload/queue.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "tests/offload/io_faulty.h"
#include "tests/offload/harness.h"

#define FILE_BYTES (6u << 20)

static struct tr_io_file files[TR_IO_FILES];
static char *memory; /* 2 * FILE_BYTES: what is written, what is read */
static enum tr_io_kind kind;

static void open_files(int direct)
{
    char *folder = test_folder();

    assert_ok(tr_make_folder(folder));
    for (int i = 0; i < TR_FILES; i++) {
        char name[8];

        snprintf(name, sizeof(name), "f%d", i);
        files[i].path = tr_path(folder, name);
        files[i].direct = direct;
        files[i].fd = tr_io_openat(AT_FDCWD, files[i].path, O_RDWR | O_CREAT, &files[i].direct);
        assert_true(files[i].fd >= 0);
        assert_int_equal(posix_fallocate(files[i].fd, 0, FILE_BYTES), 0);
    }
}

static struct tr_io_params io_params(void)
{
    static struct tr_io_region regions[2];

    regions[0] = (struct tr_io_region){memory, FILE_BYTES};
    regions[1] = (struct tr_io_region){memory + FILE_BYTES, FILE_BYTES};
    return (struct tr_io_params){
        .files = files, .regions = regions, .n_regions = 2, .depth = 8, .workers = 3};
}

static struct tr_queue *open_queue(struct faulty *f)
{
    struct tr_io_params p = io_params();
    struct tr_queue *q;
    struct tr_io *io;

    assert_ok(tr_io_open(&io, kind, &p));
    if (f)
        assert_ok(faulty_wrap(f, &io));
    assert_ok(tr_queue_open(&q, io, 8, NULL));
    return q;
}

static struct tr_transfer transfer(enum tr_io_op op, enum tr_file file)
{
    return (struct tr_transfer){.op = op,
                                .file = file,
                                .buf = memory + (op == TR_IO_READ ? FILE_BYTES : 0),
                                .bytes = FILE_BYTES};
}

static void round_trip(struct faulty *f, uint64_t seed)
{
    struct tr_queue *q = open_queue(f);
    struct tr_transfer w = transfer(TR_IO_WRITE, TR_FILE_GEN1);
    struct tr_transfer s = transfer(TR_IO_SYNC, TR_FILE_GEN1);
    struct tr_transfer r = transfer(TR_IO_READ, TR_FILE_GEN1);
    uint16_t arrived[FILE_BYTES / TR_IO_CHUNK];

    r.arrived = arrived;
    fill_bytes(memory, FILE_BYTES, seed);
    memset(memory + FILE_BYTES, 0, FILE_BYTES);
    assert_ok(tr_queue_run(q, &w));
    assert_ok(tr_queue_run(q, &s));
    assert_ok(tr_queue_run(q, &r));
    assert_int_equal(r.prefix, FILE_BYTES);
    assert_memory_equal(memory, memory + FILE_BYTES, FILE_BYTES);
    /* An odd number of blocks, in the middle */
    r.offset = 3 * TR_STORE_ALIGN;
    r.bytes = TR_IO_CHUNK + TR_STORE_ALIGN;
    assert_ok(tr_queue_run(q, &r));
    assert_memory_equal(memory + r.offset, r.buf, r.bytes);
    assert_int_equal(r.prefix, r.bytes);
    tr_queue_close(q);
}

static void plain(void **state)
{
    (void)state;
    round_trip(NULL, 1);
}

static void faulty(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct faulty f = {
            .seed = seed, .short_percent = 40, .again_percent = 30, .delay_percent = 50};

        round_trip(&f, seed);
        assert_true(f.shortened && f.interrupted && f.delayed);
    }
}

/* The whole file was promised, half of it is there. */
static void truncated(void **state)
{
    struct tr_queue *q = open_queue(NULL);
    struct tr_transfer r = transfer(TR_IO_READ, TR_FILE_GEN0);

    (void)state;
    for (int odd = 0; odd < 2; odd++) {
        assert_int_equal(ftruncate(files[0].fd, FILE_BYTES / 2 - odd * 1000), 0);
        assert_int_equal(tr_queue_run(q, &r), -ENODATA);
        assert_true(r.error_offset >= FILE_BYTES / 2 - TR_STORE_ALIGN);
    }
    assert_int_equal(posix_fallocate(files[0].fd, 0, FILE_BYTES), 0);
    assert_ok(tr_queue_run(q, &r));
    tr_queue_close(q);
}

/* The kernel writes up to the limit, says so, and refuses the rest: the refusal must come out. */
static void limit_of_size(void **state)
{
    struct rlimit old, limit;
    struct tr_queue *q = open_queue(NULL);
    struct tr_transfer w = transfer(TR_IO_WRITE, TR_FILE_GEN0);

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit){FILE_BYTES / 2 + 2 * TR_STORE_ALIGN, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(tr_queue_run(q, &w), -EFBIG);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_true(w.error_offset >= FILE_BYTES / 2);
    tr_queue_close(q);
}

/* What a drive says of a sector that it cannot read is no end of the file. */
static void bad_sector(void **state)
{
    struct faulty f = {
        .seed = 1, .fail = -ENODATA, .fail_op = TR_IO_READ, .fail_file = TR_FILE_GEN1};
    struct tr_transfer t = transfer(TR_IO_READ, TR_FILE_GEN1);
    struct tr_queue *q = open_queue(&f);

    (void)state;
    assert_int_equal(tr_queue_run(q, &t), -EIO);
    tr_queue_close(q);
}

/* EIO comes out once, and a failed sync is not tried again. */
static void injected(void **state)
{
    (void)state;
    for (int op = 0; op < TR_IO_OPS; op++) {
        struct faulty f = {.seed = 1,
                           .fail = op == TR_IO_WRITE ? -ENOSPC : -EIO,
                           .fail_op = (enum tr_io_op)op,
                           .fail_file = TR_FILE_GEN1};
        struct tr_transfer t = transfer((enum tr_io_op)op, TR_FILE_GEN1);
        struct tr_queue *q = open_queue(&f);

        f.fail_after = op == TR_IO_SYNC ? 0 : 2;
        assert_int_equal(tr_queue_run(q, &t), f.fail);
        if (op == TR_IO_SYNC)
            assert_int_equal(f.seen, 1);
        tr_queue_close(q);
    }
}

static void *wake_later(void *io)
{
    usleep(20000);
    ((struct tr_io *)io)->ops->wake(io);
    return NULL;
}

/* A sleeper is woken by another thread, also when the call came before it slept. */
static void wake(void **state)
{
    struct tr_io_params p = io_params();
    struct tr_io_request *done;
    struct tr_io *io;
    pthread_t thread;

    (void)state;
    assert_ok(tr_io_open(&io, kind, &p));
    for (int i = 0; i < 3; i++) {
        pthread_create(&thread, NULL, wake_later, io);
        assert_ok(io->ops->reap(io, 1, &done));
        assert_null(done);
        pthread_join(thread, NULL);
        io->ops->wake(io);
        assert_ok(io->ops->reap(io, 1, &done));
        assert_null(done);
    }
    io->ops->close(io);
}

/* Invariant 3 hangs on it: a sync is one of the file that was meant. A pipe has none, and says so.
 */
static void sync_of_its_file(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    for (int i = 0; i < TR_FILES; i++) {
        int fd = files[i].fd;
        struct tr_queue *q;

        files[i].fd = ends[0];
        q = open_queue(NULL);
        for (int k = 0; k < TR_FILES; k++) {
            struct tr_transfer s = transfer(TR_IO_SYNC, (enum tr_file)k);

            assert_int_equal(tr_queue_run(q, &s), i == k ? -EINVAL : 0);
        }
        tr_queue_close(q);
        files[i].fd = fd;
    }
    close(ends[0]);
    close(ends[1]);
}

/* What is under way when the engine is closed has ended by then: the memory is the caller's. */
static void closed_under_way(void **state)
{
    static struct tr_io_request requests[8];
    struct tr_io_params p = io_params();

    (void)state;
    for (int round = 0; round < 20; round++) {
        struct tr_io_request *done;
        struct tr_io *io;

        assert_ok(tr_io_open(&io, kind, &p));
        memset(memory + FILE_BYTES, 1, FILE_BYTES);
        for (int i = 0; i < 8; i++) {
            requests[i] = (struct tr_io_request){.op = TR_IO_READ,
                                                 .file = TR_FILE_GEN0,
                                                 .buf = memory + FILE_BYTES + i * (FILE_BYTES / 8),
                                                 .offset = (uint64_t)i * (FILE_BYTES / 8),
                                                 .bytes = FILE_BYTES / 8};
            io->ops->submit(io, &requests[i]);
        }
        assert_ok(io->ops->reap(io, 0, &done));
        io->ops->close(io);
        memset(memory + FILE_BYTES, 2, FILE_BYTES);
        usleep(5000);
        for (size_t i = 0; i < FILE_BYTES; i += TR_STORE_ALIGN)
            assert_int_equal(memory[FILE_BYTES + i], 2);
    }
}

/* A table that keeps what it is given and writes down the order. */
struct keeper {
    struct tr_io io;
    struct tr_io_request *kept;
    char order[64];
    int n;
};

static void keep(struct tr_io *io, struct tr_io_request *r)
{
    struct keeper *k = (struct keeper *)io;

    k->order[k->n++] = "RWS"[r->op];
    r->next = k->kept;
    k->kept = r;
}

static int give_one(struct tr_io *io, int wait, struct tr_io_request **done)
{
    struct keeper *k = (struct keeper *)io;

    (void)wait;
    *done = k->kept;
    if (*done) {
        k->kept = (*done)->next;
        (*done)->next = NULL;
        (*done)->result = (int64_t)(*done)->bytes;
    }
    return 0;
}

static void keeper_close(struct tr_io *io)
{
    (void)io;
}

static void nothing(struct tr_transfer *t)
{
    (void)t;
}

/* Reads and writes in turn while both wait; a sync before them; never more than the depth. */
static void one_to_one(void **state)
{
    static const struct tr_io_ops ops = {.submit = keep, .reap = give_one, .close = keeper_close};
    struct keeper k = {.io = {&ops}};
    struct tr_transfer r = transfer(TR_IO_READ, TR_FILE_GEN0),
                       w = transfer(TR_IO_WRITE, TR_FILE_GEN1);
    struct tr_transfer s = transfer(TR_IO_SYNC, TR_FILE_GEN0);
    struct tr_queue *q;

    (void)state;
    r.done = w.done = s.done = nothing;
    r.bytes = 4 * TR_IO_CHUNK;
    assert_ok(tr_queue_open(&q, &k.io, 3, NULL));
    tr_queue_add(q, &r);
    tr_queue_add(q, &w);
    tr_queue_add(q, &s);
    assert_ok(tr_queue_turn(q, 0));
    assert_int_equal(k.n, 3); /* then one is given back */
    while (tr_queue_under_way(q))
        assert_ok(tr_queue_turn(q, 0));
    assert_int_equal(k.n, 1 + 4 + 6);
    assert_string_equal(k.order, "SWRWRWRWRWW");
    tr_queue_close(q);
}

static int in_child(int (*fn)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(fn());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Passes there, or is skipped aloud where this system has no way to (77). */
static void passes_in_child(int (*fn)(void), const char *why)
{
    int r = in_child(fn);

    if (r == 77) {
        print_message("skipped: %s\n", why);
        skip();
    }
    assert_int_equal(r, 0);
}

static int describes(enum tr_io_kind asked, const char *word)
{
    struct tr_io_params p = io_params();
    char text[96] = "";
    struct tr_io *io;
    int told; /* why it is not the better one */

    if (tr_io_open(&io, asked, &p) < 0)
        return 0;
    io->ops->describe(io, text, sizeof(text));
    told = asked != TR_IO_AUTO || strcmp(word, "threads") || strstr(io->refused, "io_uring");
    io->ops->close(io);
    return told && strstr(text, word) != NULL;
}

/* As a container's seccomp filter does: from now on this process is refused system call nr; with an
 * operation (the second argument) that is not negative, only this one of it. */
static int refuse_call(unsigned nr, int operation)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, operation < 0 ? 1 : 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)operation, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

    if (operation < 0) { /* of any operation: the two that look at it go */
        memmove(filter + 2, filter + 4, 2 * sizeof(filter[0]));
        program.len -= 2;
    }
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int without_uring(void)
{
    struct tr_io_params p = io_params();
    struct tr_io *io;

    if (refuse_call(SYS_io_uring_setup, -1))
        return 77;
    if (tr_io_open(&io, TR_IO_URING, &p) != -EPERM && !strstr(tr_error_message(), "built without"))
        return 1;
    return describes(TR_IO_AUTO, "threads") ? 0 : 2;
}

static void refused(void **state)
{
    (void)state;
    passes_in_child(without_uring, "no system call can be refused here");
}

/* Too little memory may be locked: everything works, unregistered. */
static int with_low_memlock(void)
{
    struct rlimit limit = {1 << 16, 1 << 16};

    setrlimit(RLIMIT_MEMLOCK, &limit);
    if (geteuid() == 0 && setuid(65534) < 0)
        return 77;
    if (!describes(TR_IO_URING, "unregistered"))
        return describes(TR_IO_URING, "io_uring") ? 1 : 77;
    kind = TR_IO_URING;
    round_trip(NULL, 3);
    return 0;
}

static void low_memlock(void **state)
{
    (void)state;
    passes_in_child(with_low_memlock, "io_uring is refused to one who is not root");
}

/* The files may not be registered: each request names its own, a sync above all. */
static int with_files_refused(void)
{
    if (refuse_call(SYS_io_uring_register, IORING_REGISTER_FILES))
        return 77;
    if (!describes(TR_IO_URING, "unregistered files"))
        return 1;
    round_trip(NULL, 4);
    sync_of_its_file(NULL);
    return 0;
}

static void files_refused(void **state)
{
    (void)state;
    passes_in_child(with_files_refused, "no system call can be refused here");
}

/* More memory than one registration takes: at the end of the first part, at the beginning of the
 * second, and across both, which goes without. */
static void parts(void **state)
{
    static const int64_t places[] = {-(int64_t)FILE_BYTES, 0,
                                     (int64_t)TR_STORE_ALIGN - FILE_BYTES / 2};
    const uint64_t part = 1ull << 30, bytes = part + FILE_BYTES;
    char *big = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct tr_io_region region = {big, bytes};
    struct tr_io_params p = io_params();
    char text[96];
    struct tr_queue *q;
    struct tr_io *io;

    (void)state;
    assert_ptr_not_equal(big, MAP_FAILED);
    p.regions = &region;
    p.n_regions = 1;
    assert_ok(tr_io_open(&io, TR_IO_URING, &p));
    io->ops->describe(io, text, sizeof(text));
    assert_ok(tr_queue_open(&q, io, 8, NULL));
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct tr_transfer w = transfer(TR_IO_WRITE, TR_FILE_GEN1);
        struct tr_transfer r = transfer(TR_IO_READ, TR_FILE_GEN1);

        w.buf = r.buf = big + part + places[i];
        fill_bytes(w.buf, FILE_BYTES, 5 + i);
        memcpy(memory, w.buf, FILE_BYTES);
        assert_ok(tr_queue_run(q, &w));
        memset(w.buf, 0, FILE_BYTES);
        assert_ok(tr_queue_run(q, &r));
        assert_memory_equal(memory, r.buf, FILE_BYTES);
    }
    tr_queue_close(q);
    munmap(big, bytes);
    if (strstr(text, "unregistered buffers")) {
        print_message("skipped: a gigabyte may not be locked here\n");
        skip();
    }
}

static void close_files(void)
{
    for (int i = 0; i < TR_FILES; i++) {
        close(files[i].fd);
        tr_free(TR_MEM_MISC, files[i].path);
    }
}

static int run_suite(const char *name, int direct)
{
    int failed;

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(faulty),
        cmocka_unit_test(truncated),
        cmocka_unit_test(limit_of_size),
        cmocka_unit_test(injected),
        cmocka_unit_test(bad_sector),
        cmocka_unit_test(wake),
        cmocka_unit_test(closed_under_way),
        cmocka_unit_test(sync_of_its_file),
    };

    print_message("engine: %s\n", name);
    open_files(direct);
    failed = cmocka_run_group_tests_name(name, tests, NULL, NULL);
    close_files();
    return failed;
}

static int test_threads(void)
{
    const struct CMUnitTest common[] = {
        cmocka_unit_test(one_to_one),
        cmocka_unit_test(refused),
    };
    int failed;

    kind = TR_IO_THREADS;
    failed = run_suite("threads", 1);
    failed += run_suite("threads, buffered", 0);
    open_files(1);
    failed += cmocka_run_group_tests_name("common", common, NULL, NULL);
    close_files();
    return failed;
}

static int test_uring(void)
{
    const struct CMUnitTest registrations[] = {
        cmocka_unit_test(parts),
        cmocka_unit_test(low_memlock),
        cmocka_unit_test(files_refused),
    };
    struct tr_io_params p = {.files = files, .depth = 4};
    struct tr_io *io;
    int failed = tr_io_open_uring(&io, &p);

    if (failed) {
        int refusal = failed == -ENOSYS || failed == -EPERM;

        print_message("%s: %s\n", refusal ? "skipped" : "failed", tr_error_message());
        return refusal ? 77 : 1;
    }
    io->ops->close(io);
    kind = TR_IO_URING;
    failed = run_suite("io_uring", 1);
    failed += run_suite("io_uring, buffered", 0);
    open_files(1);
    failed += cmocka_run_group_tests_name("registrations", registrations, NULL, NULL);
    close_files();
    return failed;
}

int main(int argc, char **argv)
{
    int r;

    memory = tr_alloc_pages(TR_MEM_IO, 2 * FILE_BYTES);
    r = argc > 1 && !strcmp(argv[1], "uring") ? test_uring() : test_threads();
    tr_free_pages(TR_MEM_IO, memory, 2 * FILE_BYTES);
    return r;
}
