/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into the program: sees each read, write and sync of the store and of the export on its
 * way to the kernel, by the threads engine (pread, pwrite, fdatasync) and by io_uring (what lies in
 * the ring when it is submitted), and publishes the phase of the step that it belongs to. Forward
 * reads the units in the order of the disk, a backward pass in the opposite one, and only the
 * second of them writes; a commit is what begins with a sync of data. It also ends the process by
 * SIGKILL where the test has asked for it, and plays the defects.
 *
 * Files are known by their names, asked of /proc: descriptors are reused.
 */
#include "tests/crash/observer.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "build_config.h"
#if TR_HAVE_URING
#include <liburing.h>
#endif

#define EXPORTED __attribute__((visibility("default")))

enum kind { KIND_OTHER, KIND_GENERATION, KIND_RECORD, KIND_EXPORT };
enum act { ACT_READ, ACT_WRITE, ACT_SYNC };

struct event {
    enum kind kind;
    enum act act;
    uint64_t offset;
    size_t bytes;
};

/* A write that a defect holds back. */
struct held {
    int fd;
    void *bytes;
    size_t n;
    off_t at;
    struct held *next;
};

static struct observed *seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t last_unit;
static enum phase ahead; /* what reads have come to while a commit is under way: forward, or norm */
static int record_written;
static struct held *held;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1, folders_fd = -1;

static int open_log(const char *name, const char *end)
{
    char path[4352];

    snprintf(path, sizeof(path), "%s%s", name, end);
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

__attribute__((constructor)) static void open_eyes(void)
{
    const char *path = getenv("TR_OBSERVED"), *log = getenv("TR_OBSERVED_LOG");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    if (log) {
        log_fd = open_log(log, "");
        folders_fd = open_log(log, ".folders");
    }
    seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (seen == MAP_FAILED)
        seen = NULL;
    close(fd);
}

static int name_of(int fd, char *path, size_t room)
{
    char link[32];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, room - 1);
    path[n > 0 ? n : 0] = 0;
    return n > 0;
}

static enum kind kind_of(int fd)
{
    char path[4352];
    const char *base;

    if (!seen || !name_of(fd, path, sizeof(path)) || !(base = strrchr(path, '/')))
        return KIND_OTHER;
    if (strstr(path, "/model.tmp-"))
        return KIND_EXPORT;
    if (!strcmp(base, "/gen0") || !strcmp(base, "/gen1"))
        return KIND_GENERATION;
    return !strcmp(base, "/commit0") || !strcmp(base, "/commit1") ? KIND_RECORD : KIND_OTHER;
}

static uint32_t unit_of(uint64_t offset)
{
    uint32_t i = 0;

    while (i + 1 < seen->n_units && offset >= seen->unit_end[i])
        i++;
    return i;
}

static void enter(enum phase phase)
{
    if (seen->phase == (uint32_t)phase)
        return;
    seen->phase = phase;
    seen->entered[phase]++;
}

/* A read tells a pass by its direction. */
static enum phase pass_of(enum phase phase, uint32_t unit)
{
    if (phase == PHASE_OPEN || (phase == PHASE_BACKWARD && unit > last_unit))
        return PHASE_FORWARD;
    if (phase == PHASE_FORWARD && unit < last_unit)
        return seen->clips ? PHASE_NORM : PHASE_BACKWARD;
    return phase == PHASE_NORM && unit > last_unit ? PHASE_BACKWARD : phase;
}

/* A step may read, but not write, while the commit before it is under way: on a slow disk it is
 * through its norm pass by then. */
static void turn(uint32_t unit)
{
    enum phase next;

    if (seen->phase == PHASE_FLUSH) {
        next = pass_of(ahead, unit);
        seen->entered[next] += next != ahead;
        ahead = next;
    } else {
        enter(pass_of((enum phase)seen->phase, unit));
    }
    last_unit = unit;
}

static void enter_flush(void)
{
    if (seen->phase != PHASE_FLUSH)
        ahead = PHASE_OPEN;
    enter(PHASE_FLUSH);
}

static void leave_flush(void)
{
    if (seen->phase == PHASE_FLUSH && ahead != PHASE_OPEN)
        seen->phase = ahead;
    else
        enter(seen->phase == PHASE_IMPORT ? PHASE_OPEN : PHASE_FORWARD);
}

/* Opening a file tries whether its first block can be read directly. */
static int is_trial(const struct event *e)
{
    return e->act == ACT_READ && e->offset == 0 && e->bytes == 4096;
}

static void move(const struct event *e)
{
    enum kind kind = e->kind;
    enum act act = e->act;
    int imports = seen->phase == PHASE_OPEN || seen->phase == PHASE_IMPORT;

    if (kind == KIND_EXPORT)
        enter(PHASE_EXPORT);
    else if (kind == KIND_GENERATION && act == ACT_WRITE)
        enter(imports ? PHASE_IMPORT : PHASE_BACKWARD);
    else if (kind == KIND_GENERATION && act == ACT_READ && seen->phase != PHASE_EXPORT)
        turn(unit_of(e->offset));
    else if (act != ACT_READ && !imports)
        enter_flush();
    if (kind == KIND_RECORD && act == ACT_WRITE && e->offset == 0) {
        record_written = 1;
        seen->begun++;
    }
}

static void die_if_due(int late)
{
    uint32_t phase = seen->phase;

    if (phase != seen->die_in || late != seen->die_late || seen->events[phase] <= seen->die_after)
        return;
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void before(struct event e)
{
    if (e.kind == KIND_OTHER || (seen->phase == PHASE_OPEN && is_trial(&e)))
        return;
    pthread_mutex_lock(&lock);
    move(&e);
    seen->events[seen->phase]++;
    seen->all_events++;
    die_if_due(0);
    pthread_mutex_unlock(&lock);
}

static void after(enum kind kind, enum act act)
{
    if (kind == KIND_OTHER)
        return;
    pthread_mutex_lock(&lock);
    if (kind == KIND_RECORD && act == ACT_SYNC && record_written) {
        record_written = 0;
        seen->durable++;
        if (folders_fd >= 0)
            dprintf(folders_fd, "committed\n");
        die_if_due(1);
        leave_flush();
    }
    die_if_due(1);
    pthread_mutex_unlock(&lock);
}

/* The other generation's file, for a defect that knows only one. */
static int first_generation(int fd)
{
    static int first = -1;
    char path[4352];

    if (name_of(fd, path, sizeof(path)) && path[strlen(path) - 1] == '1') {
        path[strlen(path) - 1] = '0';
        if (first < 0)
            first = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
        return first < 0 ? fd : first;
    }
    return fd;
}

/* What is held back of these bytes is written at last. */
static void let_go(int fd, off_t at, size_t n)
{
    struct held **to = &held;

    while (*to) {
        struct held *h = *to;

        if (h->fd != fd || h->at >= at + (off_t)n || at >= h->at + (off_t)h->n) {
            to = &h->next;
            continue;
        }
        *to = h->next;
        if (syscall(SYS_pwrite64, h->fd, h->bytes, h->n, h->at) != (long)h->n)
            abort();
        free(h->bytes);
        free(h);
    }
}

static ssize_t hold_back(int fd, const void *buf, size_t n, off_t at)
{
    struct held *h = malloc(sizeof(*h));

    *h = (struct held){fd, aligned_alloc(4096, (n + 4095) / 4096 * 4096), n, at, held};
    memcpy(h->bytes, buf, n);
    held = h;
    return (ssize_t)n;
}

/* -2: no defect has a part in it. */
static ssize_t defective(enum act act, int fd, void *buf, size_t n, off_t at)
{
    ssize_t r = -2;

    pthread_mutex_lock(&lock);
    if (seen->defect == DEFECT_ONE_GENERATION && act != ACT_SYNC)
        r = syscall(act == ACT_READ ? SYS_pread64 : SYS_pwrite64, first_generation(fd), buf, n, at);
    if (seen->defect == DEFECT_EARLY_RECORD) {
        if (act != ACT_SYNC)
            let_go(fd, at, n);
        if (act != ACT_READ && seen->phase != PHASE_IMPORT)
            r = act == ACT_SYNC ? 0 : hold_back(fd, buf, n, at);
    }
    if (seen->defect == DEFECT_NO_SYNC && act == ACT_SYNC)
        r = 0;
    pthread_mutex_unlock(&lock);
    return r;
}

static int ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), k = strlen(end);

    return n > k && path[n - k - 1] == '/' && !strcmp(path + n - k, end);
}

/* Returns the number by which the end of what begins here is known; 0: it is not logged. */
static uint32_t log_begin(int fd, enum act act, const void *buf, size_t n, off_t at)
{
    static const char *const names[LOGGED_FILES] = LOGGED_NAMES;
    static uint32_t next;
    struct logged e = {.sync = act == ACT_SYNC, .offset = (uint64_t)at, .bytes = n};
    char path[4352];

    if (log_fd < 0 || act == ACT_READ || !name_of(fd, path, sizeof(path)))
        return 0;
    while (e.file < LOGGED_FILES && !ends_in(path, names[e.file]))
        e.file++;
    if (e.file == LOGGED_FILES)
        return 0;
    pthread_mutex_lock(&log_lock);
    e.id = ++next;
    if (write(log_fd, &e, sizeof(e)) != sizeof(e) || write(log_fd, buf, n) != (ssize_t)n)
        abort();
    pthread_mutex_unlock(&log_lock);
    return e.id;
}

static void log_end(uint32_t id, ssize_t moved, size_t n)
{
    struct logged e = {.done = 1, .id = id};

    if (!id)
        return;
    pthread_mutex_lock(&log_lock);
    if (moved != (ssize_t)n || write(log_fd, &e, sizeof(e)) != sizeof(e))
        abort();
    pthread_mutex_unlock(&log_lock);
}

/* What the kernel makes of it, or a defect. */
static ssize_t perform(enum act act, int fd, void *buf, size_t n, off_t at)
{
    enum kind kind = kind_of(fd);
    ssize_t r = -2;
    int error;

    before((struct event){kind, act, (uint64_t)at, n});
    if (kind == KIND_GENERATION && seen->defect)
        r = defective(act, fd, buf, n, at);
    if (r == -2) {
        uint32_t id = log_begin(fd, act, buf, n, at);

        r = act == ACT_READ    ? syscall(SYS_pread64, fd, buf, n, at)
            : act == ACT_WRITE ? syscall(SYS_pwrite64, fd, buf, n, at)
                               : syscall(SYS_fdatasync, fd);
        log_end(id, r, n);
    }
    error = errno;
    after(kind, act);
    errno = error;
    return r;
}

EXPORTED ssize_t pread(int fd, void *buf, size_t n, off_t at)
{
    return perform(ACT_READ, fd, buf, n, at);
}

EXPORTED ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
    return perform(ACT_WRITE, fd, (void *)buf, n, at);
}

EXPORTED int fdatasync(int fd)
{
    return (int)perform(ACT_SYNC, fd, NULL, 0, 0);
}

EXPORTED int mkdir(const char *path, mode_t mode)
{
    int r = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);

    if (r == 0 && folders_fd >= 0)
        dprintf(folders_fd, "made %s\n", path);
    return r;
}

static int is_folder(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

EXPORTED int fsync(int fd)
{
    enum kind kind = kind_of(fd);
    char path[4352];
    int r, error;

    if (seen && seen->defect == DEFECT_NO_NAMES && is_folder(fd))
        return 0;
    if (folders_fd >= 0 && name_of(fd, path, sizeof(path)))
        dprintf(folders_fd, "synced %s\n", path);
    before((struct event){kind, ACT_SYNC, 0, 0});
    r = (int)syscall(SYS_fsync, fd);
    error = errno;
    after(kind, ACT_SYNC);
    errno = error;
    return r;
}

#if TR_HAVE_URING
#define MAX_FILES 64

static int registered[MAX_FILES]; /* of the one ring that lives at a time */
static uint64_t record_sync;      /* user data of a record's sync under way */

static void look_at_submitted(struct io_uring *ring)
{
    for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
        const struct io_uring_sqe *e = &ring->sq.sqes[i & *ring->sq.kring_mask];
        int fixed = e->flags & IOSQE_FIXED_FILE;
        enum kind kind = kind_of(fixed ? registered[e->fd % MAX_FILES] : e->fd);

        if (e->opcode == IORING_OP_READ || e->opcode == IORING_OP_READ_FIXED)
            before((struct event){kind, ACT_READ, e->off, e->len});
        else if (e->opcode == IORING_OP_WRITE || e->opcode == IORING_OP_WRITE_FIXED)
            before((struct event){kind, ACT_WRITE, e->off, e->len});
        else if (e->opcode == IORING_OP_FSYNC)
            before((struct event){kind, ACT_SYNC, 0, 0});
        if (e->opcode == IORING_OP_FSYNC && kind == KIND_RECORD)
            record_sync = e->user_data;
    }
}

static void look_at_done(struct io_uring *ring)
{
    unsigned end = __atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE);

    for (unsigned i = *ring->cq.khead; i != end; i++) {
        const struct io_uring_cqe *e = &ring->cq.cqes[i & *ring->cq.kring_mask];

        if (record_sync && e->user_data == record_sync && e->res >= 0) {
            record_sync = 0;
            after(KIND_RECORD, ACT_SYNC);
        }
    }
}

EXPORTED int io_uring_submit_and_wait(struct io_uring *ring, unsigned n)
{
    static int (*real)(struct io_uring *, unsigned);
    int r;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");
    if (!seen)
        return real(ring, n);
    look_at_submitted(ring);
    r = real(ring, n);
    look_at_done(ring);
    return r;
}

EXPORTED int io_uring_submit(struct io_uring *ring)
{
    return io_uring_submit_and_wait(ring, 0);
}

EXPORTED int io_uring_register_files(struct io_uring *ring, const int *files, unsigned n)
{
    static int (*real)(struct io_uring *, const int *, unsigned);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "io_uring_register_files");
    memcpy(registered, files, (n < MAX_FILES ? n : MAX_FILES) * sizeof(*files));
    return real(ring, files, n);
}
#endif
