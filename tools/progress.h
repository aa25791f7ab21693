/* SPDX-License-Identifier: Apache-2.0
 *
 * Progress of a run for a person: one rewriting line on a terminal, plain lines elsewhere (about
 * one a second or one in ten steps; the first and the last always). NO_COLOR, TERM=dumb and COLUMNS
 * are honoured.
 */
#ifndef TR_TOOLS_PROGRESS_H
#define TR_TOOLS_PROGRESS_H

#include <stdio.h>

#include "src/tailrace.h"

struct progress {
    FILE *out;
    int live; /* rewrites one line */
    int color;
    int open;            /* the line is on the screen */
    double step_seconds; /* smoothed */
    double last_line;    /* when the last plain line was printed */
    int64_t last_step;   /* of that line; 0: none yet */
};

void progress_start(struct progress *p, FILE *out);
/* An import that takes longer than a second (in a log file: five) shows how far it is. */
void progress_import(struct progress *p, uint64_t done, uint64_t total);
void progress_step(struct progress *p, const struct tr_step_report *report);
/* A line of text that stays, above the rewriting one. */
void progress_say(struct progress *p, const char *line);
void progress_end(struct progress *p);

#endif
