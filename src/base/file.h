/* SPDX-License-Identifier: Apache-2.0
 *
 * Files by whole operations: each call retries EINTR, finishes short transfers, and keeps a message
 * that names the path. Used for everything that is not the store's bulk I/O.
 */
#ifndef TR_BASE_FILE_H
#define TR_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Reads the whole file, at most `limit` bytes, into a NUL-terminated TR_MEM_TEXT buffer the caller
 * frees with tr_free(TR_MEM_TEXT, *out). -EFBIG past the limit. */
int tr_file_read(const char *path, size_t limit, char **out, size_t *bytes);

/* Exactly n bytes at offset, or an error (-ENODATA where the file ends before). */
int tr_pread(int fd, const char *path, void *buf, size_t n, uint64_t offset);
int tr_pwrite(int fd, const char *path, const void *buf, size_t n, uint64_t offset);

/* Closes a file that has no name any more, and gives its space back now: a ring that it was
 * registered with lets go of it some time after it has been closed. */
void tr_file_drop(int fd);

/* Durable and atomic: PATH.tmp is written, synced, renamed to PATH, and the folder synced. */
int tr_file_write(const char *path, const void *data, size_t bytes);

/* Copies a regular file, synced; fails with -EEXIST where `to` exists. */
int tr_file_copy(const char *from, const char *to);

int tr_sync_folder(const char *path);
/* One level, its name durable; an existing folder is fine. */
int tr_make_folder(const char *path);
/* 1; 0, also for a file; -ENOENT without a message; or an error. */
int tr_folder_is_empty(const char *path);
/* 1 where FOLDER/NAME is there, whatever it is. */
int tr_folder_has(const char *folder, const char *name);
/* 1 where NAME is all that the folder holds. */
int tr_folder_holds_only(const char *path, const char *name);
/* Locks a folder that is this user's and no link: its descriptor, which holds the lock. -1, without
 * a message: it is in use, gone, or not such a folder. */
int tr_folder_lock(const char *path);
int tr_remove_tree(const char *path);               /* only ever called on folders this run made */
int tr_free_bytes(const char *path, uint64_t *out); /* space left for us on that file system */
int tr_free_bytes_of(int fd, const char *path, uint64_t *out); /* of a file that may have no name */

/* Joins with '/', into a TR_MEM_MISC string. NULL on failure. */
char *tr_path(const char *folder, const char *name);

#endif
