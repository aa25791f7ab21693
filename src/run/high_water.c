/* SPDX-License-Identifier: Apache-2.0
 *
 * How far from its start the device's arena has been written, measured. The plan hands out offsets
 * and nothing is allocated in a step, so nobody else could tell that arithmetic keeps to them.
 *
 * A page counts as written when it holds anything else than fresh memory does. Where the host sees
 * the arena, that is zero, and the kernel knows which pages were never touched: they are not looked
 * at. Elsewhere what the plan hands out, and a little behind it, is filled with a mark before its
 * first use: NaN in every dtype, so that what is read before it is written does not pass for zero.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/run/run.h"

#define PAGE   4096u
#define MARK   0xff
#define BEHIND (8u << 20) /* bytes that the mark goes beyond what the plan hands out */
#define WINDOW 1024u      /* pages whose state is asked for at once */

#define PAGEMAP "/proc/self/pagemap"
#define IN_USE  (3ull << 62) /* of an entry: in memory or swapped out */

static uint64_t marked_bytes(const struct tr_run *run)
{
    uint64_t bytes = tr_round_up(run->plan.peak, PAGE) + BEHIND, all = run->device_info.arena_bytes;

    return (bytes < all ? bytes : all) / PAGE * PAGE;
}

int run_mark_arena(struct tr_run *run)
{
    struct tr_device *d = run->device;
    int r = 0;

    if (!run->device_info.host_visible)
        r = d->ops->fill(d, TR_STREAM_COMPUTE, run->pass.arena, MARK, marked_bytes(run));
    return r < 0 ? r : d->ops->sync(d, TR_STREAM_COMPUTE);
}

static int is_fresh(const char *page, int byte)
{
    return (unsigned char)page[0] == byte && !memcmp(page, page + 1, PAGE - 1);
}

/* From `end` down, by what the kernel knows of pages; a window of untouched ones costs one call. */
static int find_end(int pagemap, const char *arena, uint64_t *end)
{
    uint64_t state[WINDOW];

    while (*end) {
        uint64_t n = *end / PAGE < WINDOW ? *end / PAGE : WINDOW, from = *end - n * PAGE;
        off_t at = (off_t)(((uintptr_t)arena + from) / PAGE * sizeof(state[0]));

        if (pread(pagemap, state, n * sizeof(state[0]), at) != (ssize_t)(n * sizeof(state[0])))
            return -EIO;
        for (; *end > from; *end -= PAGE)
            if (state[(*end - from) / PAGE - 1] & IN_USE && !is_fresh(arena + *end - PAGE, 0))
                return 0;
    }
    return 0;
}

static void visible_end(const char *arena, uint64_t *end)
{
    int pagemap = sysconf(_SC_PAGESIZE) == PAGE ? open(PAGEMAP, O_RDONLY | O_CLOEXEC) : -1;

    if (pagemap < 0 || find_end(pagemap, arena, end) < 0)
        *end = 0;
    if (pagemap >= 0)
        close(pagemap);
}

/* By way of the memory in which a step's losses come back. */
static int opaque_end(struct tr_run *run, uint64_t *end)
{
    struct tr_device *d = run->device;
    const char *page = (const char *)run->step.nll;
    int r = 0;

    while (*end && r == 0) {
        r = d->ops->copy_out(d, TR_STREAM_COMPUTE, run->step.nll, run->pass.arena + *end - PAGE,
                             PAGE);
        if (r == 0)
            r = d->ops->sync(d, TR_STREAM_COMPUTE);
        if (r == 0 && !is_fresh(page, MARK))
            break;
        *end -= PAGE;
    }
    return r;
}

int run_high_water(struct tr_run *run, uint64_t *bytes)
{
    int visible = run->device_info.host_visible;
    int r = run->device->ops->sync(run->device, TR_STREAM_COMPUTE);

    *bytes = visible ? run->device_info.arena_bytes / PAGE * PAGE : marked_bytes(run);
    if (r == 0 && visible)
        visible_end(run->pass.arena, bytes);
    else if (r == 0)
        r = opaque_end(run, bytes);
    return r;
}
