/* SPDX-License-Identifier: Apache-2.0
 *
 * A folder for the time of one call, where it is asked for, or in TMPDIR or /var/tmp. It is locked
 * while its process lives; what a process that was killed has left is removed by the next that
 * makes one there.
 */
#ifndef TR_SRC_RUN_TEMPORARY_H
#define TR_SRC_RUN_TEMPORARY_H

struct tr_temporary {
    char *path; /* NULL: none */
    int lock;
};

int tr_temporary_make(struct tr_temporary *t, const char *in); /* NULL: in TMPDIR or /var/tmp */
/* Removes it with all that is in it; nothing where there is none. */
int tr_temporary_remove(struct tr_temporary *t);

#endif
