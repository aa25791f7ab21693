/* SPDX-License-Identifier: Apache-2.0
 *
 * A commit record that has been passed over, and what the lines of metrics.jsonl say about it.
 */
#ifndef TR_SRC_RUN_TORN_H
#define TR_SRC_RUN_TORN_H

#include <stdio.h>
#include <sys/types.h>

#include "offload/store.h"

#define METRICS_FILE "metrics.jsonl"

/* What is to be said of it. 0: nothing, there is none; 1: a crash may have torn it; -1: it was
 * durable once, and is damaged. run: whose store it is, or NULL; step: at which it stands. */
int run_torn(const char *run, const struct tr_store *s, uint64_t step, char *text, size_t room);

/* A line at most, with its end: ours are shorter. */
#define METRICS_LINE 768

/* Opens a file of lines, NULL: errno tells why; one that is no file neither blocks nor passes. */
FILE *metrics_open_file(const char *path, int flags, const char *mode);
/* Its length, 0: there is none any more. One that is too long is read to its end, and cut. */
long metrics_read_line(FILE *f, char line[METRICS_LINE]);
/* 1: a whole line, which begins with its step. */
int metrics_step_of(const char *line, long n, unsigned long long *step);
/* Bytes as far as the last whole line of a step up to `step`, which is told in *last (0: there is
 * none); one behind it that is torn goes, and what lies before it stays, whatever it is. */
long metrics_find_end(FILE *f, uint64_t step, uint64_t *last);

#endif
