/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors: every function that can fail returns 0 (or a count) or a negative errno. The text is
 * kept per thread, written once where the facts are known (file, tensor, offset, what to do), and
 * read by the tool at the end. It is one line, whatever it quotes. Nothing here prints.
 */
#ifndef TR_BASE_ERR_H
#define TR_BASE_ERR_H

#include <errno.h>
#include <stdint.h>

/* Keeps the message for this thread and returns code, so that `return tr_error(-EINVAL, ...)`. */
int tr_error(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "TEXT: " before the message kept by a callee; returns code. The caller adds the place. */
int tr_error_prefix(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For options that have no default: -EINVAL and a message where the value is NULL or empty. */
int tr_need(const char *value, const char *option);

/* A count is at least 1; 0: not given. */
int tr_need_count(int64_t value, const char *option);
int tr_need_text(const char *value, const char *option); /* NULL is the default, "" is none */
#define TR_MOST_THREADS 1024
int tr_need_threads(int64_t value);

/* The last message of this thread, "" where there was none. Valid until the next tr_error. */
const char *tr_error_message(void);

#endif
