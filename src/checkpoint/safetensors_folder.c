/* SPDX-License-Identifier: Apache-2.0
 *
 * Files and folders of safetensors: opens, checks, joins the shards to one table of tensors, reads.
 * One file is open at a time, so that the number of shards meets no limit.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/checkpoint/safetensors.h"
#include "src/checkpoint/shards.h"

#define HEADER_BYTES (16u << 20) /* a model of 1024 layers needs 3 MB */
#define INDEX_BYTES  (16u << 20)
#define MAX_SHARDS   4096u
#define SINGLE       "model.safetensors"

static int open_regular(const char *path, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), e = 0; /* a fifo must not block */

    if (fd < 0)
        return tr_error(-errno, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, st) < 0)
        e = tr_error(-errno, "%s: cannot look at it: %s", path, strerror(errno));
    else if (!S_ISREG(st->st_mode))
        e = tr_error(-EINVAL, "%s: not a regular file", path);
    if (e == 0)
        return fd;
    close(fd);
    return e;
}

/* The file begins with the length of its header, eight bytes little-endian, in no text. Both bounds
 * are checked before memory is taken: the length is the file's word for it (invariant 9). */
static int read_header_text(int fd, const char *path, uint64_t size, char **text, uint64_t *bytes)
{
    unsigned char le[8];
    uint64_t n = 0;
    int r;

    if (size < 8)
        return tr_error(-EINVAL, "%s: %llu bytes: too short for a safetensors file", path,
                        (unsigned long long)size);
    r = tr_pread(fd, path, le, 8, 0);
    if (r < 0)
        return r;
    if (!memcmp(le, "version ", 8)) /* as a length more than any file has */
        return tr_error(-EINVAL,
                        "%s: only a pointer to the file, as a clone without Git LFS leaves it: "
                        "`git lfs pull' brings the file",
                        path);
    for (int i = 0; i < 8; i++)
        n |= (uint64_t)le[i] << (8 * i);
    if (n > size - 8)
        return tr_error(-EINVAL,
                        "%s: header of %llu bytes in a file of %llu: truncated, or not a "
                        "safetensors file",
                        path, (unsigned long long)n, (unsigned long long)size);
    if (n > HEADER_BYTES)
        return tr_error(-EINVAL, "%s: header of %llu bytes; at most %u are read", path,
                        (unsigned long long)n, HEADER_BYTES);
    *text = tr_alloc(TR_MEM_TEXT, n + 1);
    if (!*text)
        return -ENOMEM;
    r = tr_pread(fd, path, *text, n, 8);
    if (r < 0)
        tr_free(TR_MEM_TEXT, *text);
    *bytes = n;
    return r;
}

/* Takes the tensors of a shard's header over into the table. */
static int take_tensors(struct tr_safetensors *s, struct tr_st_header *h)
{
    struct tr_st_shard *shard = &s->shards[s->n_shards - 1];
    size_t n = (size_t)s->n_tensors + h->n_tensors;
    struct tr_st_tensor *p = tr_realloc(TR_MEM_MISC, s->tensors, n * sizeof(*p) + 1);

    if (!p)
        return -ENOMEM;
    s->tensors = p;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        p[s->n_tensors + i] = h->tensors[i];
        p[s->n_tensors + i].shard = s->n_shards - 1;
    }
    shard->first = s->n_tensors;
    shard->n_tensors = h->n_tensors;
    shard->metadata = h->metadata;
    s->n_tensors = (uint32_t)n;
    tr_free(TR_MEM_MISC, h->tensors);
    return 0;
}

/* Size, inode and time of what has been checked are kept: switch_shard holds them against what it
 * opens later, and against what it has read when it leaves it, so that the checks are of the bytes
 * that are read. */
static int read_shard(struct tr_safetensors *s, struct tr_st_shard *shard)
{
    struct tr_st_header h;
    struct stat st;
    char *text = NULL;
    uint64_t bytes = 0;
    int fd = open_regular(shard->path, &st), r;

    if (fd < 0)
        return fd;
    shard->file_bytes = (uint64_t)st.st_size;
    shard->device = st.st_dev;
    shard->inode = st.st_ino;
    shard->changed = st.st_mtim;
    r = read_header_text(fd, shard->path, shard->file_bytes, &text, &bytes);
    close(fd);
    if (r < 0)
        return r;
    shard->data = 8 + bytes;
    r = tr_safetensors_parse(text, bytes, shard->file_bytes - shard->data, shard->path, &h);
    tr_free(TR_MEM_TEXT, text);
    if (r < 0)
        return r;
    r = take_tensors(s, &h);
    if (r < 0)
        tr_st_header_free(&h);
    return r;
}

/* Both strings become the table's, also on failure. */
static int add_shard(struct tr_safetensors *s, char *name, char *path)
{
    size_t n = (size_t)s->n_shards + 1;
    struct tr_st_shard *p = NULL;

    if (name && path)
        p = tr_realloc(TR_MEM_MISC, s->shards, n * sizeof(*p));
    if (!p) {
        tr_free(TR_MEM_MISC, name);
        tr_free(TR_MEM_MISC, path);
        return -ENOMEM;
    }
    s->shards = p;
    p = &p[s->n_shards++];
    memset(p, 0, sizeof(*p));
    p->name = name;
    p->path = path;
    return read_shard(s, p);
}

static _Thread_local const struct tr_st_tensor *sort_table; /* qsort takes no argument */

static int by_name(const void *a, const void *b)
{
    return strcmp(sort_table[*(const uint32_t *)a].name, sort_table[*(const uint32_t *)b].name);
}

/* Sorted, two of one name lie side by side; the same order serves tr_safetensors_find. */
static int sort_names(struct tr_safetensors *s)
{
    s->by_name = tr_alloc_array(TR_MEM_MISC, s->n_tensors, sizeof(*s->by_name));
    if (!s->by_name)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->n_tensors; i++)
        s->by_name[i] = i;
    sort_table = s->tensors;
    qsort(s->by_name, s->n_tensors, sizeof(*s->by_name), by_name);
    for (uint32_t i = 1; i < s->n_tensors; i++) {
        const struct tr_st_tensor *a = &s->tensors[s->by_name[i - 1]];
        const struct tr_st_tensor *b = &s->tensors[s->by_name[i]];

        if (!strcmp(a->name, b->name))
            return tr_error(-EINVAL, "%s: tensor %s: is in %s too", tr_safetensors_path(s, b),
                            b->name, tr_safetensors_path(s, a));
    }
    return 0;
}

/* The map names a file once for each tensor: each is opened once. Files are counted as they come,
 * since every one of them costs an open and a header, however short the index is. The names may be
 * links to one large header: where the files have more tensors than the map, sort_names or
 * check_index finds one to blame, and no other file is opened. */
static int add_index_shards(struct tr_safetensors *s, const char *folder, json_t *map)
{
    json_t *seen = json_object();
    const char *tensor;
    json_t *file;
    int r = seen ? 0 : -ENOMEM;

    json_object_foreach(map, tensor, file) {
        const char *name = json_string_value(file);

        if (r < 0 || s->n_tensors > json_object_size(map))
            break;
        if (json_object_get(seen, name))
            continue;
        if (s->n_shards == MAX_SHARDS)
            r = tr_error(-EINVAL, "%s: the index names more than %u files", folder, MAX_SHARDS);
        else if (json_object_set_new(seen, name, json_true()) < 0)
            r = -ENOMEM;
        else
            r = add_shard(s, tr_strdup(TR_MEM_MISC, name), tr_path(folder, name));
    }
    json_decref(seen);
    return r;
}

/* The index and the headers must say the same: each tensor of one in the other, and there. */
static int check_index(struct tr_safetensors *s, const char *where, json_t *map)
{
    const char *name;
    json_t *file;

    for (uint32_t i = 0; i < s->n_tensors; i++)
        if (!json_object_get(map, s->tensors[i].name))
            return tr_error(-EINVAL, "%s: weight_map: tensor %s of %s is missing", where,
                            s->tensors[i].name, tr_safetensors_path(s, &s->tensors[i]));
    json_object_foreach(map, name, file) {
        const struct tr_st_tensor *t = tr_safetensors_find(s, name);

        if (!t && tr_shards_ignored(name)) /* dropped from the file alone by some writers */
            continue;
        if (!t || strcmp(s->shards[t->shard].name, json_string_value(file)))
            return tr_error(-EINVAL, "%s: weight_map: tensor %s is not in %s", where, name,
                            json_string_value(file));
    }
    return 0;
}

/* A note, no error: nothing is read or sized by that number. */
static void note_total(struct tr_safetensors *s, const char *where)
{
    const json_t *v = json_object_get(s->index_metadata, "total_size");
    uint64_t sum = 0;

    for (uint32_t i = 0; i < s->n_tensors; i++)
        sum += s->tensors[i].bytes;
    if (v && (!json_is_number(v) || json_number_value(v) != (double)sum))
        snprintf(s->note, sizeof(s->note), "%s: total_size is not the %llu bytes of the tensors",
                 where, (unsigned long long)sum);
}

static int names_only(json_t *map, const char *file)
{
    const char *name;
    json_t *of;

    json_object_foreach(map, name, of) {
        if (!json_is_string(of) || strcmp(json_string_value(of), file))
            return 0;
    }
    return 1;
}

/* Some write an index beside a single file, too. One of other files leaves open which is the model:
 * that is what an upload over an older one leaves. */
static int open_indexed(struct tr_safetensors *s, const char *folder, const char *path,
                        int has_single)
{
    json_t *index, *map, *metadata;
    char *text;
    size_t bytes;
    int r = tr_file_read(path, INDEX_BYTES, &text, &bytes);

    if (r < 0)
        return r;
    r = tr_safetensors_parse_index(text, bytes, path, &index);
    tr_free(TR_MEM_TEXT, text);
    if (r < 0)
        return r;
    map = json_object_get(index, "weight_map");
    metadata = json_object_get(index, "metadata");
    s->indexed = 1;
    s->index_metadata = json_is_object(metadata) ? json_incref(metadata) : NULL;
    if (has_single && !names_only(map, SINGLE))
        r = tr_error(-EINVAL,
                     "%s: has both " SINGLE " and " SINGLE ".index.json: which one is meant?",
                     folder);
    else
        r = add_index_shards(s, folder, map);
    if (r == 0)
        r = sort_names(s);
    if (r == 0)
        r = check_index(s, path, map);
    if (r == 0)
        note_total(s, path);
    json_decref(index);
    return r;
}

/* Says why: weights in a format that can run code when it is read are the usual reason. */
static int no_weights(const char *folder)
{
    static const char *const pickled[] = {".bin", ".pth", ".pt", NULL};
    DIR *d = opendir(folder);
    struct dirent *e;
    char pickle[128] = "";

    if (!d)
        return tr_error(-errno, "%s: cannot open the folder: %s", folder, strerror(errno));
    while ((e = readdir(d)))
        if (tr_ends_in(e->d_name, pickled))
            snprintf(pickle, sizeof(pickle), "%.100s", e->d_name);
    closedir(d);
    if (pickle[0])
        return tr_error(-ENOENT,
                        "%s: only pickled weights (%s), which are never read: convert them "
                        "to safetensors first",
                        folder, pickle);
    return tr_error(-ENOENT, "%s: neither model.safetensors nor model.safetensors.index.json",
                    folder);
}

static int open_one(struct tr_safetensors *s, const char *path)
{
    const char *slash = strrchr(path, '/');
    int r = add_shard(s, tr_strdup(TR_MEM_MISC, slash ? slash + 1 : path),
                      tr_strdup(TR_MEM_MISC, path));

    return r < 0 ? r : sort_names(s);
}

static int open_weights(struct tr_safetensors *s, const char *folder)
{
    char *single = tr_path(folder, SINGLE), *index = tr_path(folder, SINGLE ".index.json");
    int has_single = single && access(single, F_OK) == 0;
    int has_index = index && access(index, F_OK) == 0, r;

    if (!single || !index)
        r = -ENOMEM;
    else if (has_index)
        r = open_indexed(s, folder, index, has_single);
    else
        r = has_single ? open_one(s, single) : no_weights(folder);
    tr_free(TR_MEM_MISC, single);
    tr_free(TR_MEM_MISC, index);
    return r;
}

static int open_with(struct tr_safetensors **out, const char *path,
                     int (*fill)(struct tr_safetensors *, const char *))
{
    struct tr_safetensors *s = tr_alloc(TR_MEM_MISC, sizeof(*s));
    int r;

    *out = NULL;
    if (!s)
        return -ENOMEM;
    s->fd = -1;
    r = fill(s, path);
    if (r < 0) {
        tr_safetensors_close(s);
        return r;
    }
    *out = s;
    return 0;
}

int tr_safetensors_open_folder(struct tr_safetensors **out, const char *folder)
{
    return open_with(out, folder, open_weights);
}

int tr_safetensors_open_file(struct tr_safetensors **out, const char *path)
{
    return open_with(out, path, open_one);
}

void tr_safetensors_close(struct tr_safetensors *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_shards; i++) {
        tr_free(TR_MEM_MISC, s->shards[i].name);
        tr_free(TR_MEM_MISC, s->shards[i].path);
        json_decref(s->shards[i].metadata);
    }
    for (uint32_t i = 0; i < s->n_tensors; i++)
        tr_free(TR_MEM_MISC, s->tensors[i].name);
    tr_free(TR_MEM_MISC, s->shards);
    tr_free(TR_MEM_MISC, s->tensors);
    tr_free(TR_MEM_MISC, s->by_name);
    json_decref(s->index_metadata);
    if (s->fd >= 0)
        close(s->fd);
    tr_free(TR_MEM_MISC, s);
}

const struct tr_st_tensor *tr_safetensors_find(const struct tr_safetensors *s, const char *name)
{
    uint32_t low = 0, high = s->n_tensors;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct tr_st_tensor *t = &s->tensors[s->by_name[middle]];
        int c = strcmp(name, t->name);

        if (c == 0)
            return t;
        if (c < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *tr_safetensors_path(const struct tr_safetensors *s, const struct tr_st_tensor *t)
{
    return s->shards[t->shard].path;
}

static int check_same(const struct tr_st_shard *h, const struct stat *st)
{
    if ((uint64_t)st->st_size != h->file_bytes || st->st_dev != h->device ||
        st->st_ino != h->inode || st->st_mtim.tv_sec != h->changed.tv_sec ||
        st->st_mtim.tv_nsec != h->changed.tv_nsec)
        return tr_error(-ESTALE, "%s: changed while it was read", h->path);
    return 0;
}

int tr_safetensors_unchanged(const struct tr_safetensors *s)
{
    struct stat st;

    if (!s || s->fd < 0)
        return 0;
    if (fstat(s->fd, &st) < 0)
        return tr_error(-errno, "%s: %s", s->shards[s->open_shard].path, strerror(errno));
    return check_same(&s->shards[s->open_shard], &st);
}

/* Tensors are asked for in the order of the store, which is nearly that of the files. */
static int switch_shard(struct tr_safetensors *s, uint32_t shard)
{
    const struct tr_st_shard *h = &s->shards[shard];
    struct stat st;
    int fd, r;

    if (s->fd >= 0 && s->open_shard == shard)
        return 0;
    if ((r = tr_safetensors_unchanged(s)) < 0)
        return r;
    fd = open_regular(h->path, &st);
    if (fd < 0)
        return fd;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = fd;
    s->open_shard = shard;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return check_same(h, &st);
}

int tr_safetensors_read(struct tr_safetensors *s, const struct tr_st_tensor *t, uint64_t from,
                        void *buf, size_t n)
{
    uint64_t at = s->shards[t->shard].data + t->offset + from;
    int r;

    if (from > t->bytes || n > t->bytes - from)
        return tr_error(-EINVAL, "%s: tensor %s: read past its end", tr_safetensors_path(s, t),
                        t->name);
    r = switch_shard(s, t->shard);
    if (r == 0)
        r = tr_pread(s->fd, s->shards[t->shard].path, buf, n, at);
    if (r < 0)
        return tr_error_prefix(r, "tensor %s", t->name);
    /* Each byte is read once: the page cache is left to those who come back. */
    posix_fadvise(s->fd, (off_t)at, (off_t)n, POSIX_FADV_DONTNEED);
    return 0;
}
