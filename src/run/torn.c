/* SPDX-License-Identifier: Apache-2.0
 *
 * A commit record that is torn or damaged, and passed over: what its owner is told. A crash in the
 * middle of a commit leaves a torn one, and the run has lost nothing but the step at hand: that is
 * said, and no error. But a line in metrics.jsonl is written only when the commit of its step is
 * durable: where it has one of a later step than the store stands at, that commit was there, and
 * its record has been damaged since.
 */
#include "src/run/torn.h"

#include "src/base/err.h"
#include "src/run/metrics_lines.h"

int run_torn(const char *run, const struct tr_store *s, uint64_t step, char *text, size_t room)
{
    const char *path = tr_store_torn(s);
    uint64_t last = path && run ? metrics_last_step(run) : 0;

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
