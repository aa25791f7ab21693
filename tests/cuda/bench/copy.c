/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies between pinned host memory and the device: each direction alone, which is the peak, and
 * both at once on their own streams, as a step does.
 */
#include "tests/cuda/bench/bench.h"

struct pair {
    char *in, *out; /* host; NULL: not this direction */
    size_t bytes;
};

static void copy(const struct bench *b, void *arg)
{
    const struct pair *p = arg;

    if (p->in)
        bench_must(b->d->ops->copy_in(b->d, TR_STREAM_IN, b->arena, p->in, p->bytes));
    if (p->out)
        bench_must(b->d->ops->copy_out(b->d, TR_STREAM_OUT, p->out, b->arena + p->bytes, p->bytes));
}

static double rate(const struct bench *b, struct pair p)
{
    return (double)p.bytes / bench_time(b, copy, &p) * 1e-9;
}

void bench_copies(struct bench *b)
{
    size_t bytes = b->quick ? 65536 : (size_t)256 << 20;
    char *in = b->d->ops->host_alloc(b->d, bytes), *out = b->d->ops->host_alloc(b->d, bytes);
    double alone_in, alone_out, both;

    bench_must(in && out ? 0 : -1);
    alone_in = rate(b, (struct pair){in, NULL, bytes});
    alone_out = rate(b, (struct pair){NULL, out, bytes});
    both = rate(b, (struct pair){in, out, bytes});
    bench_row("host to device alone", alone_in, "GB/s", 0);
    bench_row("device to host alone", alone_out, "GB/s", 0);
    bench_row("both at once, each, against the slower alone", both, "GB/s",
              alone_in < alone_out ? alone_in : alone_out);
    b->d->ops->host_free(b->d, in, bytes);
    b->d->ops->host_free(b->d, out, bytes);
}
