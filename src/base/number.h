/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers as files and options have them, with a point, whatever locale the program around the
 * library has chosen: in some a run would begin with a file that another cannot read.
 */
#ifndef TR_BASE_NUMBER_H
#define TR_BASE_NUMBER_H

#include <stddef.h>

double tr_number_read(const char *text, char **end); /* as strtod */
/* As snprintf. */
int tr_number_print(char *text, size_t room, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
