/* SPDX-License-Identifier: Apache-2.0
 *
 * Model folders for tests, made without any code of the program: names, shapes and file format are
 * written down a second time here. A test makes a folder's table, breaks what it wants, writes it.
 */
#ifndef TESTS_MODEL_MAKE_H
#define TESTS_MODEL_MAKE_H

#include <stddef.h>
#include <stdint.h>

#define MAKE_TENSORS 256

struct make_tensor {
    char name[96];
    char dtype[8]; /* "F32", "BF16", "F16", or whatever a test wants */
    int dims;
    int64_t shape[2];
    uint64_t bytes;
    int shard;
};

struct make_folder {
    char config[2048];
    struct make_tensor t[MAKE_TENSORS];
    int n, shards;
    int sparse;           /* data are holes: large folders cost nothing */
    const char *metadata; /* of each file; NULL: none */
};

struct make_shape {
    const char *family; /* llama, qwen2, qwen3 */
    int layers, hidden, ffn, heads, kv_heads, head_dim, vocab, tied;
    const char *dtype; /* NULL: F32 */
    const char *norms; /* dtype of the norms; NULL: the same */
    int shards;
};

/* A small llama, 3 shards: what most tests begin with. */
extern const struct make_shape make_small;

void make_table(struct make_folder *f, const struct make_shape *s);
struct make_tensor *make_find(struct make_folder *f, const char *name);
void make_drop(struct make_folder *f, const char *name);
struct make_tensor *make_add(struct make_folder *f, const char *name, int64_t rows, int64_t cols);
/* All tensors in one file, which has no index. */
void make_one_shard(struct make_folder *f);
/* Writes config.json, tokenizer.json, a sub-folder, the weights and their index. */
void make_write(const struct make_folder *f, const char *folder);

/* One safetensors file: header of `bytes` bytes behind its length, then n data bytes. */
void make_safetensors(const char *path, const char *header, size_t bytes, size_t n);
void make_file(const char *folder, const char *name, const char *text);

/* A fresh empty folder; make_clean removes it. Paths below it: make_path, valid for 64 calls. */
void make_temp(char folder[64]);
void make_clean(const char *folder);
/* One byte of a file is written over in place, and the time of that is another. */
void make_changed(const char *path);
const char *make_path(const char *folder, const char *name);

/* 1 when both folders hold the same regular files with the same bytes. Says what differs. */
int make_same(const char *a, const char *b);
/* A number that changes with any name, size, content or time of a folder's files. */
uint64_t make_print(const char *folder);
int make_exists(const char *folder, const char *name);

#endif
