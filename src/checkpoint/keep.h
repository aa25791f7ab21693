/* SPDX-License-Identifier: Apache-2.0
 *
 * The kept folder of a run (RUN/source): every file of the source folder that is not weights, byte
 * for byte, or in place of its tokenizer's the files of the one that the run was given; and
 * tailrace-shards.json, which says how the weights were split, in which types, and how the store
 * was laid out. With it and the store the source folder is not needed any more.
 */
#ifndef TR_SRC_CHECKPOINT_KEEP_H
#define TR_SRC_CHECKPOINT_KEEP_H

#include "src/checkpoint/shards.h"

#define TR_KEEP_FILE       "tailrace-shards.json"
#define TR_KEEP_FILE_BYTES (256ull << 20) /* larger files of a source folder are left out */

struct tr_kept {
    struct tr_model *model;
    struct tr_shards shards;
    json_t *sums; /* of the other files, by name; NULL in older runs */
    char *base;   /* with adapters: the folder that they were made for */
};

/* Reads config.json, which must be the one that was kept, and tailrace-shards.json. */
int tr_keep_open(struct tr_kept **out, const char *folder);
/* The text of tailrace-shards.json alone; `where` names it. */
int tr_keep_parse(struct tr_kept **out, const char *text, size_t bytes, const char *where,
                  const struct tr_model_config *config);
/* The checksums of a folder's files but our own; NULL: one cannot be read, or no memory. */
json_t *tr_keep_sums(const char *folder);
/* -EBADMSG where the file is not the one that was kept. */
int tr_keep_check_sum(const struct tr_kept *k, const char *folder, const char *name);
/* The same for all of them: how many are not, each told. */
int tr_keep_verify(const struct tr_kept *k, const char *folder,
                   void (*found)(void *arg, const char *text), void *arg);
/* -EINVAL where the store has another layout than this model. */
int tr_keep_check_store(const struct tr_kept *k, const struct tr_store *s);
void tr_keep_close(struct tr_kept *k); /* NULL is allowed */

/* Writes tailrace-shards.json. from: the source folder, or NULL; uuid: of the store. */
int tr_keep_write(const char *folder, const struct tr_model *m, const struct tr_shards *s,
                  const char *from, const char *uuid);

#define TR_KEEP_UUID 40
/* The store that it names; "": none, as in older runs, or it cannot be read. */
void tr_keep_store_uuid(const char *folder, char uuid[TR_KEEP_UUID]);

/* Chat templates beside the first one: the only sub-folder that is kept. */
#define TR_KEEP_TEMPLATES "additional_chat_templates"
/* Calls fn with every name in a folder and in that sub-folder of it ("." and folders too), until it
 * fails. */
typedef int tr_keep_name_fn(void *arg, const char *name);
int tr_keep_names(const char *folder, tr_keep_name_fn *fn, void *arg);

/* Copies regular files by these names that are not weights (all: 0), or everything but our own file
 * (all: 1). */
int tr_keep_copy(const char *from, const char *to, int all);
/* Says in `note` which file of a source is left out, for its size or as a link (reach.h), if any.
 */
int tr_keep_note(const char *from, char *note, size_t room);
/* Copies tokenizer.json and its companions from one folder to another, as far as they exist. */
int tr_keep_copy_tokenizer(const char *from, const char *to);
/* The same, in place of all that the kept folder has of another tokenizer. */
int tr_keep_change_tokenizer(const char *from, const char *kept);

/* "float32" ... as config.json names it. */
const char *tr_keep_type_name(enum tr_dtype t);
/* Changes the dtype that FOLDER/config.json names, under the key or keys that it uses. */
int tr_keep_set_type(const char *folder, enum tr_dtype type);

#endif
