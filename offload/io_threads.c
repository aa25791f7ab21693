/* SPDX-License-Identifier: Apache-2.0
 *
 * The threads engine: workers that do one blocking pread, pwrite or fdatasync at a time. For
 * systems where io_uring is refused; the bits are the same.
 *
 * Threads: `lock` guards the two lists and the flags; it is never held during a system call.
 */
#include <stdio.h>
#include <unistd.h>

#include "offload/io.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/base/thread.h"

struct list {
    struct tr_io_request *first, *last;
};

struct threads {
    struct tr_io io; /* first: the table's handle */
    const struct tr_io_file *files;
    uint32_t n_folders;
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    struct list waiting, done;
    int stop, woken;
    int n_workers;
    pthread_t *workers;
};

static void push(struct list *l, struct tr_io_request *r)
{
    r->next = NULL;
    if (l->last)
        l->last->next = r;
    else
        l->first = r;
    l->last = r;
}

static struct tr_io_request *pop(struct list *l)
{
    struct tr_io_request *r = l->first;

    if (r)
        l->first = r->next;
    if (!l->first)
        l->last = NULL;
    return r;
}

static void perform(const struct threads *t, struct tr_io_request *r)
{
    const struct tr_io_file *file = &t->files[r->file];
    ssize_t n;

    if (r->op == TR_IO_READ)
        n = pread(file->fd, r->buf, r->bytes, (off_t)r->offset);
    else if (r->op == TR_IO_WRITE)
        n = pwrite(file->fd, r->buf, r->bytes, (off_t)r->offset);
    else
        n = fdatasync(file->fd);
    r->result = n < 0 ? -errno : n;
    tr_io_forget(file, r);
}

static void *work(void *arg)
{
    struct threads *t = arg;

    pthread_mutex_lock(&t->lock);
    for (;;) {
        struct tr_io_request *r;

        while (!t->stop && !t->waiting.first)
            pthread_cond_wait(&t->work, &t->lock);
        r = pop(&t->waiting);
        if (!r)
            break;
        pthread_mutex_unlock(&t->lock);
        perform(t, r);
        pthread_mutex_lock(&t->lock);
        push(&t->done, r);
        pthread_cond_signal(&t->finished);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void threads_submit(struct tr_io *io, struct tr_io_request *r)
{
    struct threads *t = (struct threads *)io;

    pthread_mutex_lock(&t->lock);
    push(&t->waiting, r);
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

static int threads_reap(struct tr_io *io, int wait, struct tr_io_request **done)
{
    struct threads *t = (struct threads *)io;

    pthread_mutex_lock(&t->lock);
    while (wait && !t->woken && !t->done.first)
        pthread_cond_wait(&t->finished, &t->lock);
    t->woken = 0;
    *done = t->done.first;
    t->done = (struct list){0};
    pthread_mutex_unlock(&t->lock);
    return 0;
}

static void threads_wake(struct tr_io *io)
{
    struct threads *t = (struct threads *)io;

    pthread_mutex_lock(&t->lock);
    t->woken = 1;
    pthread_cond_signal(&t->finished);
    pthread_mutex_unlock(&t->lock);
}

static void threads_close(struct tr_io *io)
{
    struct threads *t = (struct threads *)io;

    pthread_mutex_lock(&t->lock);
    t->stop = 1;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < t->n_workers; i++)
        pthread_join(t->workers[i], NULL);
    pthread_cond_destroy(&t->finished);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
    tr_free(TR_MEM_MISC, t->workers);
    tr_free(TR_MEM_MISC, t);
}

static void threads_describe(const struct tr_io *io, char *text, size_t room)
{
    const struct threads *t = (const struct threads *)io;
    char way[64];

    tr_io_describe_files(t->files, t->n_folders, way, sizeof(way));
    snprintf(text, room, "%d threads, %s", t->n_workers, way);
}

static const struct tr_io_ops threads_ops = {
    .submit = threads_submit,
    .reap = threads_reap,
    .wake = threads_wake,
    .close = threads_close,
    .describe = threads_describe,
};

int tr_io_open_threads(struct tr_io **out, const struct tr_io_params *p)
{
    struct threads *t = tr_alloc(TR_MEM_MISC, sizeof(*t));
    int workers = p->workers * (int)tr_io_folders(p), r = 0;

    if (!t)
        return -ENOMEM;
    t->io.ops = &threads_ops;
    t->files = p->files;
    t->n_folders = tr_io_folders(p);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->finished, NULL);
    t->workers = tr_alloc_array(TR_MEM_MISC, (size_t)workers, sizeof(*t->workers));
    if (!t->workers)
        r = -ENOMEM;
    while (r == 0 && t->n_workers < workers) {
        r = tr_thread_start(&t->workers[t->n_workers], "tr-io", work, t);
        t->n_workers += r == 0;
    }
    if (r < 0) {
        threads_close(&t->io);
        return tr_error_prefix(r, "%d I/O threads", workers);
    }
    *out = &t->io;
    return 0;
}
