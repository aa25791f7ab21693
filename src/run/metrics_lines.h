/* SPDX-License-Identifier: Apache-2.0
 *
 * The lines of RUN/metrics.jsonl as they are read again: by the run that goes on with them, and by
 * who asks how far one has been (torn.h).
 */
#ifndef TR_SRC_RUN_METRICS_LINES_H
#define TR_SRC_RUN_METRICS_LINES_H

#include <stdint.h>
#include <stdio.h>

#define METRICS_FILE "metrics.jsonl"

/* A line at most, with its end: ours are shorter. */
#define METRICS_LINE 768

/* Opens a file of lines, NULL: errno tells why; one that is no file neither blocks nor passes, nor
 * does a link: what it leads to is not the run's, to be cut and added to. */
FILE *metrics_open_file(const char *path, int flags, const char *mode);
/* Its length, 0: there is none any more. One that is too long is read to its end, and cut. */
long metrics_read_line(FILE *f, char line[METRICS_LINE]);
/* 1: a whole line, which begins with its step. */
int metrics_step_of(const char *line, long n, unsigned long long *step);
/* Bytes as far as the last whole line of a step up to `step`, which is told in *last (0: there is
 * none); one behind it that is torn goes, and what lies before it stays, whatever it is. */
long metrics_find_end(FILE *f, uint64_t step, uint64_t *last);
/* The step of the last whole line of a run's folder, 0: there is none. */
uint64_t metrics_last_step(const char *run);

#endif
