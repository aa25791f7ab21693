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

/* For who writes a file from its beginning, after each write: as soon as 64 MiB are new since
 * *flushed, they are made durable and the page cache gives up what it holds of the file. */
int tr_file_flush(int fd, const char *path, uint64_t written, uint64_t *flushed);

/* Closes a file that has no name any more, and gives its space back now: a ring that it was
 * registered with lets go of it some time after it has been closed. */
void tr_file_drop(int fd);

/* What a file is called until it is whole: PATH with this behind it. */
#define TR_FILE_TMP ".tmp-tailrace"

/* Durable and atomic: written under that name, synced, renamed to PATH, and the folder synced. Of
 * two at once on one file each is whole, and the later one stays. What a kill left under that name
 * goes; no other file is touched, and no link followed. */
int tr_file_write(const char *path, const void *data, size_t bytes);

/* Copies a file, synced; fails with -EEXIST where `to` exists, -EFBIG past so many bytes. */
int tr_file_copy(const char *from, const char *to, uint64_t most);

/* Makes the names in it durable; some file systems (a virtual machine's shared folders) have no
 * such thing, and are not asked for more. */
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
/* A file, or a folder with all that is in it, whoever put it there: only for names that are ours.
 * Of a link, PATH itself too, the link goes, not what it leads to. 0 where there is nothing. */
int tr_remove_tree(const char *path);
/* Space left for us on that file system; the second of a file that may have no name. */
int tr_free_bytes(const char *path, uint64_t *out);
int tr_free_bytes_of(int fd, const char *path, uint64_t *out);

/* Joins with '/', into a TR_MEM_MISC string. NULL on failure. */
char *tr_path(const char *folder, const char *name);
/* The folder that PATH is in, likewise; of "a/b/" it is "a". */
char *tr_folder_of(const char *path);
/* Whether PATH, which is not there, could be made: for who has long work to do before. */
int tr_check_place(const char *path);
/* 1 where a name or path has one of these endings, in whatever case; NULL closes the list. */
int tr_ends_in(const char *path, const char *const *endings);

#endif
