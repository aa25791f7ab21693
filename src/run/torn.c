/* SPDX-License-Identifier: Apache-2.0
 *
 * A commit record that is torn or damaged, and passed over: what its owner is told. A crash in the
 * middle of a commit leaves a torn one, and the run has lost nothing but the step at hand: that is
 * said, and no error. But a line in metrics.jsonl is written only when the commit of its step is
 * durable: where it has one of a later step than the store stands at, that commit was there, and
 * its record has been damaged since.
 */
#include "src/run/torn.h"

#include <fcntl.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/run/metrics_lines.h"

/* The step of the last whole line, 0: there is none. */
static uint64_t last_step(const char *run)
{
    char *path = tr_path(run, METRICS_FILE);
    FILE *f = path ? metrics_open_file(path, O_RDONLY, "r") : NULL;
    uint64_t last = 0;

    if (f) {
        metrics_find_end(f, UINT64_MAX, &last);
        fclose(f);
    }
    tr_free(TR_MEM_MISC, path);
    return last;
}

int run_torn(const char *run, const struct tr_store *s, uint64_t step, char *text, size_t room)
{
    const char *path = tr_store_torn(s);
    uint64_t last = path && run ? last_step(run) : 0;

    *text = 0;
    if (!path)
        return 0;
    if (last > step)
        snprintf(text, room,
                 "%s: damaged: this commit record, newer than the other one, was durable: step "
                 "%llu was done by then; the store stands at step %llu again",
                 path, (unsigned long long)last, (unsigned long long)step);
    else if (tr_store_torn_damaged(s))
        snprintf(text, room,
                 "%s: this commit record is damaged; the store stands at the other one, of step "
                 "%llu",
                 path, (unsigned long long)step);
    else
        snprintf(text, room,
                 "%s: this commit record is torn, as by a crash in the middle of a commit, or "
                 "damaged; the store stands at the other one, of step %llu",
                 path, (unsigned long long)step);
    return last > step || tr_store_torn_damaged(s) ? -1 : 1;
}
