/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/offload/io_faulty.h"

#include <stdlib.h>
#include <string.h>

#include "tests/offload/harness.h"

/* What is handed to the real table in place of the caller's request. */
struct shadow {
    struct tr_io_request real;   /* first */
    struct tr_io_request *asked; /* NULL once it has been answered */
    int64_t answer;              /* instead of the real result, when `lies` */
    int lies;
    int late; /* told when nothing else is under way */
    uint32_t id;
    uint32_t patience; /* requests that a mutant lets pass before it */
    struct shadow *next;
};

struct faulty_io {
    struct tr_io io; /* first */
    struct tr_io *real;
    struct faulty *f;
    struct shadow *held;    /* finished, not yet told */
    struct shadow *delayed; /* answered already, not yet submitted */
    uint32_t under_way;     /* in the real table */
    int broken;
};

void log_open(struct io_log *log)
{
    memset(log, 0, sizeof(*log));
    pthread_mutex_init(&log->lock, NULL);
}

void log_close(struct io_log *log)
{
    for (size_t i = 0; i < log->n; i++)
        free(log->events[i].data);
    free(log->events);
    pthread_mutex_destroy(&log->lock);
}

static void note(struct faulty_io *t, enum log_kind kind, struct shadow *s)
{
    struct io_log *log = t->f->log;
    struct log_event e = {.kind = kind,
                          .op = s->real.op,
                          .file = s->real.file,
                          .offset = s->real.offset,
                          .bytes = s->real.bytes};

    if (!log || s->real.op == TR_IO_READ || tr_file_kind(s->real.file) == TR_FILE_SCRATCH)
        return;
    pthread_mutex_lock(&log->lock);
    if (kind == LOG_SUBMIT)
        s->id = log->next_id++;
    e.id = s->id;
    if (kind == LOG_SUBMIT && e.op == TR_IO_WRITE) {
        e.data = malloc(e.bytes);
        memcpy(e.data, s->real.buf, e.bytes);
    }
    if (log->n == log->room) {
        log->room = log->room ? 2 * log->room : 256;
        log->events = realloc(log->events, log->room * sizeof(e));
    }
    log->events[log->n++] = e;
    pthread_mutex_unlock(&log->lock);
}

static void count(struct faulty *f, enum tr_io_op op, int by)
{
    if (op == TR_IO_READ)
        f->reads += (uint32_t)by;
    if (op == TR_IO_WRITE)
        f->writes += (uint32_t)by;
    if (f->reads && f->writes)
        atomic_store(&f->together, 1);
}

static void hold(struct faulty_io *t, struct shadow *s)
{
    s->next = t->held;
    t->held = s;
}

static void really_submit(struct faulty_io *t, struct shadow *s)
{
    note(t, LOG_SUBMIT, s);
    count(t->f, s->real.op, 1);
    t->under_way++;
    if (s->real.op == TR_IO_WRITE && tr_file_is_generation(s->real.file))
        atomic_fetch_add(&t->f->all_writes, 1);
    if (t->f->clock)
        atomic_fetch_add(t->f->clock, s->real.bytes / 1024 * t->f->ns_per_kib);
    t->real->ops->submit(t->real, &s->real);
}

static void answer(struct faulty_io *t, struct shadow *s, int64_t result)
{
    s->lies = 1;
    s->answer = result;
    hold(t, s);
}

static int percent(struct faulty *f, uint32_t chance)
{
    return chance && rng_below(&f->seed, 100) < chance;
}

/* Moves the first `blocks` only. 1: none of them. */
static int shorten(struct faulty_io *t, struct shadow *s, uint32_t blocks)
{
    struct faulty *f = t->f;

    f->shortened++;
    s->real.bytes = (size_t)blocks * TR_STORE_ALIGN;
    s->answer = (int64_t)s->real.bytes + rng_below(&f->seed, TR_STORE_ALIGN - 1) + 1;
    s->lies = 1; /* part of a block more than what is really moved, as kernels may say */
    if (!blocks)
        hold(t, s);
    return !blocks;
}

static int is_due(struct faulty *f, const struct tr_io_request *r)
{
    return f->fail && (f->fail_op == TR_IO_OPS || f->fail_op == r->op) &&
           (f->fail_file == FAULTY_ANY_FILE || f->fail_file == r->file) &&
           (f->seen++ == f->fail_after || f->fail_always);
}

/* The one fault that was asked for. 1: dealt with. A sync moves nothing that could be short. */
static int fail_once(struct faulty_io *t, struct shadow *s)
{
    struct faulty *f = t->f;
    uint32_t half = (uint32_t)(s->real.bytes / TR_STORE_ALIGN / 2);

    f->failed_op = s->real.op;
    if (f->fail == FAULTY_SHORT || f->fail == FAULTY_FULL) {
        f->full = f->fail == FAULTY_FULL && s->real.op == TR_IO_WRITE;
        f->full_file = s->real.file;
        f->full_at = s->real.offset + (uint64_t)half * TR_STORE_ALIGN;
        return s->real.op != TR_IO_SYNC && shorten(t, s, half);
    }
    if (f->fail == FAULTY_LATE || f->fail == FAULTY_BROKEN) {
        s->late = f->fail == FAULTY_LATE;
        t->broken = f->fail == FAULTY_BROKEN;
        return 0;
    }
    if (f->fail == FAULTY_SWALLOWED && s->real.op == TR_IO_READ) /* nor by luck what it would be */
        memset(s->real.buf, 0xa5, s->real.bytes);
    answer(t, s,
           f->fail == FAULTY_SWALLOWED ? (int64_t)s->real.bytes
           : f->fail == FAULTY_ZERO    ? 0
                                       : f->fail);
    return 1;
}

/* 1: dealt with; the real table never sees it. */
static int inject(struct faulty_io *t, struct shadow *s)
{
    struct faulty *f = t->f;

    if (f->full && s->real.op == TR_IO_WRITE && s->real.file == f->full_file &&
        s->real.offset == f->full_at) {
        answer(t, s, -ENOSPC);
        return 1;
    }
    if (is_due(f, &s->real))
        return fail_once(t, s);
    if (s->real.op != TR_IO_SYNC && percent(f, f->again_percent)) {
        f->interrupted++;
        answer(t, s, rng_below(&f->seed, 2) ? -EINTR : -EAGAIN);
        return 1;
    }
    if (s->real.op != TR_IO_SYNC && percent(f, f->short_percent))
        return shorten(t, s, rng_below(&f->seed, (uint32_t)(s->real.bytes / TR_STORE_ALIGN)));
    return 0;
}

static int mutate(struct faulty_io *t, struct shadow *s)
{
    enum mutant m = t->f->mutant;
    int data = tr_file_is_generation(s->real.file) || tr_file_kind(s->real.file) == TR_FILE_SCRATCH;
    int forgotten = (m == MUTANT_NO_DATA_SYNC && data) || (m == MUTANT_NO_RECORD_SYNC && !data) ||
                    (m == MUTANT_NO_PART_SYNC && tr_file_folder(s->real.file) > 0);
    int early = (m == MUTANT_EARLY_WRITE && s->real.op == TR_IO_WRITE && data) ||
                (m == MUTANT_EARLY_SYNC && s->real.op == TR_IO_SYNC && !data);

    if (m == MUTANT_ONE_GENERATION && tr_file_is_generation(s->real.file))
        s->real.file = tr_file_in(TR_FILE_GEN0, tr_file_folder(s->real.file));
    if (s->real.op == TR_IO_SYNC && forgotten) {
        answer(t, s, 0);
        return 1;
    }
    if (early) {
        struct shadow *copy = malloc(sizeof(*copy));

        *copy = *s;
        copy->asked = NULL;
        copy->patience = t->f->patience;
        if (s->real.op == TR_IO_WRITE) {
            copy->real.buf = aligned_alloc(TR_STORE_ALIGN, s->real.bytes);
            memcpy(copy->real.buf, s->real.buf, s->real.bytes);
        }
        copy->next = t->delayed;
        t->delayed = copy;
        answer(t, s, (int64_t)s->real.bytes);
        return 1;
    }
    return 0;
}

/* What a mutant holds back is submitted when its patience is over. */
static void grow_impatient(struct faulty_io *t, int all)
{
    struct shadow **at = &t->delayed;

    while (*at) {
        struct shadow *s = *at;

        if (s->patience && !all) {
            s->patience--;
            at = &s->next;
            continue;
        }
        *at = s->next;
        really_submit(t, s);
    }
}

static void faulty_submit(struct tr_io *io, struct tr_io_request *r)
{
    struct faulty_io *t = (struct faulty_io *)io;
    struct shadow *s = calloc(1, sizeof(*s));

    grow_impatient(t, 0);
    s->real = *r;
    s->asked = r;
    if (!inject(t, s) && !mutate(t, s))
        really_submit(t, s);
}

static void take_back(struct faulty_io *t, struct tr_io_request *done)
{
    while (done) {
        struct shadow *s = (struct shadow *)done;

        done = done->next;
        if (s->real.result >= 0)
            note(t, LOG_DONE, s);
        count(t->f, s->real.op, -1);
        t->under_way--;
        if (s->asked) {
            hold(t, s);
            continue;
        }
        if (s->real.op == TR_IO_WRITE)
            free(s->real.buf);
        free(s);
    }
}

static int is_held(const struct faulty *f, const struct shadow *s)
{
    return (s->real.op == TR_IO_SYNC && atomic_load(&f->hold_syncs)) ||
           (s->real.op == TR_IO_WRITE && tr_file_is_generation(s->real.file) &&
            atomic_load(&f->hold_writes));
}

/* Hands held requests back in an order of its own; the rest waits for another turn. */
static struct tr_io_request *tell(struct faulty_io *t)
{
    struct shadow *list = t->held;
    struct tr_io_request *told = NULL;

    t->held = NULL;
    while (list) {
        struct shadow *s = list;

        list = s->next;
        if (is_held(t->f, s) || (s->late && (t->under_way || list || t->held || told)) ||
            percent(t->f, t->f->delay_percent)) {
            t->f->delayed++;
            hold(t, s);
            continue;
        }
        s->asked->result = s->lies ? s->answer : s->real.result;
        s->asked->next = told;
        told = s->asked;
        free(s);
    }
    return told;
}

static int faulty_reap(struct tr_io *io, int wait, struct tr_io_request **done)
{
    struct faulty_io *t = (struct faulty_io *)io;
    struct tr_io_request *real = NULL;
    int r;

    *done = NULL;
    if (t->broken)
        return tr_error(-EBADR, "the test table has broken down");
    r = t->real->ops->reap(t->real, wait && !t->held, &real);
    take_back(t, real);
    *done = tell(t);
    return r;
}

static void faulty_wake(struct tr_io *io)
{
    struct faulty_io *t = (struct faulty_io *)io;

    t->real->ops->wake(t->real);
}

static void faulty_close(struct tr_io *io)
{
    struct faulty_io *t = (struct faulty_io *)io;

    grow_impatient(t, 1);
    while (t->under_way) {
        struct tr_io_request *real = NULL;

        t->real->ops->reap(t->real, 1, &real);
        take_back(t, real);
    }
    while (t->held) {
        struct shadow *s = t->held;

        t->held = s->next;
        free(s);
    }
    t->real->ops->close(t->real);
    free(t);
}

static void faulty_describe(const struct tr_io *io, char *text, size_t room)
{
    const struct faulty_io *t = (const struct faulty_io *)io;

    t->real->ops->describe(t->real, text, room);
}

static const struct tr_io_ops faulty_ops = {
    .submit = faulty_submit,
    .reap = faulty_reap,
    .wake = faulty_wake,
    .close = faulty_close,
    .describe = faulty_describe,
};

int faulty_wrap(void *arg, struct tr_io **io)
{
    struct faulty_io *t = calloc(1, sizeof(*t));

    t->io.ops = &faulty_ops;
    t->real = *io;
    t->f = arg;
    *io = &t->io;
    return 0;
}
