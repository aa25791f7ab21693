/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that appears whole or not at all: it is filled under another name beside its place,
 * synced, and given its name. Nothing that exists is overwritten (invariant 7). What a process that
 * was killed has left of such a file goes when the next one is begun for the same place.
 */
#ifndef TR_SRC_CHECKPOINT_OUT_FILE_H
#define TR_SRC_CHECKPOINT_OUT_FILE_H

#include <stddef.h>

/* The first bytes of the file, which come last: until then a mark stands there. */
#define TR_OUT_FILE_HEAD 20u

struct tr_out_file {
    const char *path; /* where it will be; borrowed */
    char *tmp;        /* where it is filled, from TR_OUT_FILE_HEAD on; NULL: not begun */
    int fd;           /* has a lock */
};

/* -EEXIST: `path` is there, if only as a link to nothing; for who has much to do before. */
int tr_out_file_check(const char *path);
/* The same, and what it is filled as is made. */
int tr_out_file_begin(struct tr_out_file *o, const char *path);
/* r is how filling went: 0 writes the head (TR_OUT_FILE_HEAD bytes), syncs and names the file, an
 * error removes what was made. Returns r or the first error; the struct is free afterwards. */
int tr_out_file_end(struct tr_out_file *o, const void *head, int r);

#endif
