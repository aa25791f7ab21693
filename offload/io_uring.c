/* SPDX-License-Identifier: Apache-2.0
 *
 * io_uring: one ring, owned by one thread that sleeps in it; the files registered, the slots'
 * memory registered in parts of at most 1 GiB (the kernel's limit), each of which holds many slots.
 * What cannot be registered (an old kernel, a low limit of locked memory) is used all the same, a
 * little slower. A read of an eventfd stays in the ring: that is how other threads wake the
 * sleeper.
 */
#include <assert.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "offload/io.h"
#include "src/base/err.h"
#include "src/base/mem.h"

#define PART_BYTES (1ull << 30)

struct uring {
    struct tr_io io; /* first: the table's handle */
    struct io_uring ring;
    const struct tr_io_file *files;
    uint32_t n_folders;
    int registered_files;
    struct iovec *part; /* registered memory, in order of address */
    uint32_t n_parts;
    int event; /* eventfd, -1 before it is open */
    uint64_t event_value;
    int armed;          /* its read is in the ring */
    uint32_t under_way; /* requests that have not been taken */
};

/* A read or write within one registered part needs no pinning of pages; others go without. */
static int part_of(const struct uring *u, const struct tr_io_request *r)
{
    for (uint32_t i = 0; i < u->n_parts; i++) {
        const char *base = u->part[i].iov_base;

        if (r->buf >= base && r->buf + r->bytes <= base + u->part[i].iov_len)
            return (int)i;
    }
    return -1;
}

/* The queue keeps fewer requests under way than the ring has places, so there is always one. */
static struct io_uring_sqe *next_sqe(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    assert(sqe);
    return sqe;
}

static void uring_submit(struct tr_io *io, struct tr_io_request *r)
{
    struct uring *u = (struct uring *)io;
    struct io_uring_sqe *sqe = next_sqe(u);
    const struct tr_io_file *file = &u->files[r->file];
    int fd = u->registered_files ? (int)r->file : file->fd;
    int part = r->op == TR_IO_SYNC ? -1 : part_of(u, r);
    unsigned bytes = (unsigned)r->bytes;

    if (r->op == TR_IO_SYNC)
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    else if (r->op == TR_IO_READ && part >= 0)
        io_uring_prep_read_fixed(sqe, fd, r->buf, bytes, r->offset, part);
    else if (r->op == TR_IO_READ)
        io_uring_prep_read(sqe, fd, r->buf, bytes, r->offset);
    else if (part >= 0)
        io_uring_prep_write_fixed(sqe, fd, r->buf, bytes, r->offset, part);
    else
        io_uring_prep_write(sqe, fd, r->buf, bytes, r->offset);
    if (u->registered_files)
        sqe->flags |= IOSQE_FIXED_FILE;
    /* A copy that the kernel would do here and now; this thread has checksums to do meanwhile. */
    if (r->op != TR_IO_SYNC && (file->memory || !file->direct))
        sqe->flags |= IOSQE_ASYNC;
    io_uring_sqe_set_data(sqe, r);
    u->under_way++;
}

static void arm(struct uring *u)
{
    struct io_uring_sqe *sqe;

    if (u->armed)
        return;
    sqe = next_sqe(u);
    io_uring_prep_read(sqe, u->event, &u->event_value, sizeof(u->event_value), 0);
    io_uring_sqe_set_data(sqe, NULL);
    u->armed = 1;
}

static void take(struct uring *u, struct tr_io_request **done)
{
    struct tr_io_request **last = done;
    struct io_uring_cqe *cqe;

    *done = NULL;
    while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        struct tr_io_request *r = io_uring_cqe_get_data(cqe);

        if (r) {
            r->result = cqe->res;
            r->next = NULL;
            tr_io_forget(&u->files[r->file], r);
            *last = r;
            last = &r->next;
            u->under_way--;
        } else {
            u->armed = 0;
        }
        io_uring_cqe_seen(&u->ring, cqe);
    }
}

static int uring_reap(struct tr_io *io, int wait, struct tr_io_request **done)
{
    struct uring *u = (struct uring *)io;
    int r;

    arm(u);
    r = io_uring_submit_and_wait(&u->ring, wait ? 1 : 0);
    take(u, done);
    /* Interrupted, or short of memory or room for the moment: what is done has been taken, and the
     * caller comes again. Anything else means that completions may have been lost. */
    if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
        return tr_error(r, "io_uring: %s", strerror(-r));
    return 0;
}

static void uring_wake(struct tr_io *io)
{
    struct uring *u = (struct uring *)io;
    uint64_t one = 1;
    ssize_t n;

    do
        n = write(u->event, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
}

/* The kernel ends a closed ring's requests some time later; what they read into may be another's
 * by then. Those that it was never given stay where they are. */
static void drain(struct uring *u)
{
    struct tr_io_request *done;
    struct io_uring_cqe *cqe;
    int r = 0;

    while (u->under_way > io_uring_sq_ready(&u->ring) && (r == 0 || r == -EINTR)) {
        r = io_uring_wait_cqe(&u->ring, &cqe);
        take(u, &done);
    }
}

static void uring_close(struct tr_io *io)
{
    struct uring *u = (struct uring *)io;

    drain(u);
    if (u->n_parts) /* unpinned now: the kernel frees a ring some time after it has been closed */
        io_uring_unregister_buffers(&u->ring);
    io_uring_queue_exit(&u->ring); /* cancels the read of the eventfd */
    if (u->event >= 0)
        close(u->event);
    tr_free(TR_MEM_MISC, u->part);
    tr_free(TR_MEM_MISC, u);
}

static void uring_describe(const struct tr_io *io, char *text, size_t room)
{
    const struct uring *u = (const struct uring *)io;
    char way[64];

    tr_io_describe_files(u->files, u->n_folders, way, sizeof(way));
    snprintf(text, room, "io_uring, %s, %s%s", way,
             u->n_parts ? "registered buffers" : "unregistered buffers",
             u->registered_files ? "" : ", unregistered files");
}

static const struct tr_io_ops uring_ops = {
    .submit = uring_submit,
    .reap = uring_reap,
    .wake = uring_wake,
    .close = uring_close,
    .describe = uring_describe,
};

static int can_read_and_write(struct io_uring *ring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    int can = probe && io_uring_opcode_supported(probe, IORING_OP_READ) &&
              io_uring_opcode_supported(probe, IORING_OP_WRITE);

    io_uring_free_probe(probe);
    return can;
}

static void register_files(struct uring *u)
{
    int fd[TR_MOST_FILES];
    uint32_t n = tr_file_count(u->n_folders);

    for (uint32_t i = 0; i < n; i++)
        fd[i] = u->files[i].fd;
    u->registered_files = io_uring_register_files(&u->ring, fd, n) == 0;
}

static int register_buffers(struct uring *u, const struct tr_io_params *p)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < p->n_regions; i++)
        most += p->regions[i].bytes / PART_BYTES + 1;
    u->part = tr_alloc_array(TR_MEM_MISC, most, sizeof(*u->part));
    if (!u->part)
        return -ENOMEM;
    for (uint32_t i = 0; i < p->n_regions; i++) {
        for (uint64_t at = 0; at < p->regions[i].bytes; at += PART_BYTES) {
            uint64_t left = p->regions[i].bytes - at;

            u->part[u->n_parts++] =
                (struct iovec){p->regions[i].base + at, left < PART_BYTES ? left : PART_BYTES};
        }
    }
    if (u->n_parts && io_uring_register_buffers(&u->ring, u->part, u->n_parts) < 0)
        u->n_parts = 0;
    return 0;
}

int tr_io_open_uring(struct tr_io **out, const struct tr_io_params *p)
{
    struct uring *u = tr_alloc(TR_MEM_MISC, sizeof(*u));
    int r;

    if (!u)
        return -ENOMEM;
    u->io.ops = &uring_ops;
    u->files = p->files;
    u->n_folders = tr_io_folders(p);
    u->event = -1;
    /* Places for the requests, the eventfd, and as many that wait to be submitted again. */
    r = io_uring_queue_init(2 * p->depth * u->n_folders + 2, &u->ring, 0);
    if (r < 0) {
        tr_free(TR_MEM_MISC, u);
        return tr_error(r, "io_uring is refused on this system: %s", strerror(-r));
    }
    if (!can_read_and_write(&u->ring)) {
        r = tr_error(-ENOSYS, "io_uring of this kernel cannot read and write (before 5.6)");
        goto fail;
    }
    u->event = eventfd(0, EFD_CLOEXEC);
    if (u->event < 0) {
        r = tr_error(-errno, "eventfd: %s", strerror(errno));
        goto fail;
    }
    register_files(u);
    r = register_buffers(u, p);
    if (r < 0)
        goto fail;
    *out = &u->io;
    return 0;

fail:
    uring_close(&u->io);
    return r;
}
