/* SPDX-License-Identifier: Apache-2.0
 *
 * A folder that appears whole or not at all: it is filled under another name beside its place,
 * synced, and renamed. Nothing that exists is overwritten (invariant 7). What a process that was
 * killed has left of such a folder goes when the next one is begun for the same place.
 */
#ifndef TR_SRC_CHECKPOINT_OUT_FOLDER_H
#define TR_SRC_CHECKPOINT_OUT_FOLDER_H

struct tr_out_folder {
    char *path; /* where it will be */
    char *tmp;  /* where it is filled */
    int lock;   /* on that, while it is */
};

/* -EEXIST: `path` is there and is not an empty folder. */
int tr_out_folder_begin(struct tr_out_folder *o, const char *path);
/* r is how filling went: 0 syncs and renames, an error removes what was made. Returns r or the
 * first error; the struct is free afterwards. */
int tr_out_folder_end(struct tr_out_folder *o, int r);

#endif
