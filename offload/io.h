/* SPDX-License-Identifier: Apache-2.0
 *
 * All disk traffic of a store, its commits included, goes through this table: io_uring, threads,
 * and in the tests a faulty twin that shortens, delays, reorders, fails and logs.
 *
 * One thread owns a tr_io: it submits and reaps. Only wake may be called from elsewhere. A request
 * belongs to the table from submit until reap hands it back. The table reports what the kernel said
 * (bytes moved or -errno) and interprets nothing: short transfers are the queue's business.
 */
#ifndef TR_OFFLOAD_IO_H
#define TR_OFFLOAD_IO_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/folders.h"

enum tr_io_kind { TR_IO_AUTO, TR_IO_URING, TR_IO_THREADS };
enum tr_io_op { TR_IO_READ, TR_IO_WRITE, TR_IO_SYNC, TR_IO_OPS }; /* SYNC: data and size, durable */

/* The files of a store, in this order everywhere; then the scratch file of an engine, which has no
 * name and is no part of the store. TR_IO_FILES of them in a store's own folder; each further one
 * has the two generations and scratch, counted on. */
enum tr_file {
    TR_FILE_GEN0,
    TR_FILE_GEN1,
    TR_FILE_COMMIT0,
    TR_FILE_COMMIT1,
    TR_FILES,
    TR_FILE_SCRATCH = TR_FILES,
    TR_IO_FILES
};

#define TR_PART_FILES 3u
#define TR_MOST_FILES ((uint32_t)TR_IO_FILES + TR_PART_FILES * (TR_STORE_FOLDERS - 1))

static inline uint32_t tr_file_in(enum tr_file file, uint32_t folder)
{
    uint32_t in_part = file == TR_FILE_SCRATCH ? TR_PART_FILES - 1 : (uint32_t)file;

    return folder ? (uint32_t)TR_IO_FILES + TR_PART_FILES * (folder - 1) + in_part : (uint32_t)file;
}

static inline uint32_t tr_file_folder(uint32_t file)
{
    return file < (uint32_t)TR_IO_FILES ? 0 : 1 + (file - (uint32_t)TR_IO_FILES) / TR_PART_FILES;
}

/* Which one it is in its folder. */
static inline enum tr_file tr_file_kind(uint32_t file)
{
    uint32_t in_part = (file - (uint32_t)TR_IO_FILES) % TR_PART_FILES;

    if (file < (uint32_t)TR_IO_FILES)
        return (enum tr_file)file;
    return in_part == TR_PART_FILES - 1 ? TR_FILE_SCRATCH : (enum tr_file)in_part;
}

static inline uint32_t tr_file_count(uint32_t n_folders)
{
    return (uint32_t)TR_IO_FILES + TR_PART_FILES * (n_folders - 1);
}

static inline int tr_file_is_generation(uint32_t file)
{
    return tr_file_kind(file) <= TR_FILE_GEN1;
}

struct tr_io_file {
    int fd;     /* -1: absent */
    int direct; /* O_DIRECT: offsets, lengths and memory are multiples of 4096 */
    int memory; /* its file system is memory: a transfer is a copy */
    char *path;
};

struct tr_io_request {
    enum tr_io_op op;
    uint32_t file; /* of io_params.files */
    char *buf;
    uint64_t offset;
    size_t bytes;
    int64_t result; /* bytes moved, or negative errno; set when reaped */
    struct tr_io_request *next;
};

struct tr_io {
    const struct tr_io_ops *ops;
    char refused[96]; /* why it is not the engine that was tried first; "": it is */
};

struct tr_io_ops {
    void (*submit)(struct tr_io *io, struct tr_io_request *r);
    /* The finished requests as a list (may be empty). With wait: sleeps until there is one or wake
     * was called. Negative errno: the engine itself broke down. */
    int (*reap)(struct tr_io *io, int wait, struct tr_io_request **done);
    void (*wake)(struct tr_io *io);
    /* Of what was submitted and not reaped some may have happened; none is under way any more. */
    void (*close)(struct tr_io *io);
    void (*describe)(const struct tr_io *io, char *text, size_t room);
};

/* Memory that transfers go to or from again and again; may be registered with the kernel. */
struct tr_io_region {
    char *base;
    uint64_t bytes;
};

struct tr_io_params {
    const struct tr_io_file *files; /* [tr_file_count(n_folders)], outlives the tr_io */
    uint32_t n_folders;             /* 0: one */
    const struct tr_io_region *regions;
    uint32_t n_regions;
    uint32_t depth; /* requests under way at most, in each folder */
    int workers;    /* of the threads engine, for each folder */
};

static inline uint32_t tr_io_folders(const struct tr_io_params *p)
{
    return p->n_folders ? p->n_folders : 1;
}

/* AUTO: io_uring, or threads where the kernel refuses it; TAILRACE_IO=uring|threads decides. */
int tr_io_open(struct tr_io **out, enum tr_io_kind kind, const struct tr_io_params *p);
/* -EINVAL where that says neither: for long jobs, which open their first engine late. */
int tr_io_check_environment(void);
int tr_io_open_uring(struct tr_io **out, const struct tr_io_params *p);
int tr_io_open_threads(struct tr_io **out, const struct tr_io_params *p);

/* As openat: a descriptor, or -errno. *direct: the wish for O_DIRECT, and whether it is: not where
 * the file system has none, or none for blocks of TR_STORE_ALIGN. */
int tr_io_openat(int folder_fd, const char *name, int flags, int *direct);
/* The same of a new file that has no name, in `folder` (from folder_fd on, as `name`): where the
 * file system has none such, `name` is its name for a moment. */
int tr_io_open_nameless(int folder_fd, const char *folder, const char *name, int *direct);

/* "O_DIRECT", "2 folders, buffered": of the generations' files. */
void tr_io_describe_files(const struct tr_io_file *files, uint32_t n_folders, char *text,
                          size_t room);

/* After a buffered (not O_DIRECT) transfer or sync: the page cache need not keep these bytes. */
void tr_io_forget(const struct tr_io_file *file, const struct tr_io_request *r);

/* Lets a test put its own table around each one that is opened, and refuse what a system may. */
struct tr_io_hook {
    int (*wrap)(void *arg, struct tr_io **io); /* NULL: none */
    void *arg;
    int buffered;        /* as on a file system without O_DIRECT */
    const double *speed; /* of the folders, instead of a measurement */
};

#endif
