/* SPDX-License-Identifier: Apache-2.0
 *
 * RUN/plan.json, as far as the program reads it again: the store that it names, what the bits of
 * the run so far depend on, and how many steps there are to be.
 */
#ifndef TR_SRC_PLAN_PLAN_FILE_H
#define TR_SRC_PLAN_PLAN_FILE_H

#include <stddef.h>
#include <stdint.h>

struct tr_plan_file {
    char store_uuid[40]; /* empty texts and 0: it does not say */
    char bits[96];
    int64_t steps;
};

/* Of a run folder; one without the file says nothing. */
int tr_plan_file_read(const char *run, struct tr_plan_file *p);
/* -EINVAL: not such a file; `where` names it. */
int tr_plan_file_parse(const char *text, size_t bytes, const char *where, struct tr_plan_file *p);

#endif
