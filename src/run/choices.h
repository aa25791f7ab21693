/* SPDX-License-Identifier: Apache-2.0
 *
 * RUN/matmuls.txt as text.
 */
#ifndef TR_SRC_RUN_CHOICES_H
#define TR_SRC_RUN_CHOICES_H

/* The lines of `before` (NULL: none) and those of `now` whose shape has none there, each with its
 * newline; TR_MEM_TEXT. *differ: how many others say something else. NULL: no memory. */
char *choices_merge(const char *before, const char *now, int *differ);

#endif
