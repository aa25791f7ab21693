/* SPDX-License-Identifier: Apache-2.0
 *
 * Under which name something lies beside its place until it is finished, and what was left there by
 * a process that was killed. Beside it, and not in /tmp: only within one file system is a rename
 * atomic. The process id keeps two at a time apart.
 */
#ifndef TR_SRC_CHECKPOINT_UNFINISHED_H
#define TR_SRC_CHECKPOINT_UNFINISHED_H

/* In what is not finished: the name of a file in a folder, the first bytes of a file. */
#define TR_UNFINISHED_MARK "tailrace-unfinished"

/* PATH.tmp-PID, or the next number that is free: in a container a process has always the same one.
 * TR_MEM_MISC, NULL on failure. */
char *tr_unfinished_name(const char *path);

/* Is this such a name of `name`, both without a folder? */
int tr_unfinished_is(const char *entry, const char *name);
/* Calls `sweep_one` with everything that such a name of PATH has, whoever's it is: that one removes
 * what is surely ours and nobody is at. What cannot be removed is no reason to fail. */
void tr_unfinished_sweep(const char *path, void (*sweep_one)(const char *left));

#endif
