/* SPDX-License-Identifier: Apache-2.0
 *
 * A model that is written leaves the page cache while it is: a machine, or a memory cgroup, that is
 * smaller than the model never has to hold all of it. As a GGUF file and as a folder.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/checkpoint/gguf.h"
#include "src/checkpoint/import.h"
#include "tests/train/common.h"

#define PAGE 4096u
#define MOST (70u << 20) /* what is written between two looks of the writer, and some more */

/* 90 MB in bf16, most of it one table. */
static const char shape[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 1024,"
    " \"intermediate_size\": 64, \"num_hidden_layers\": 1, \"num_attention_heads\": 4,"
    " \"vocab_size\": 40000, \"tie_word_embeddings\": true}";

struct watch {
    char path[4500]; /* what is being written */
    size_t most;     /* bytes of it in the page cache */
};

static size_t cached_bytes(const char *path)
{
    unsigned char *there;
    struct stat st;
    size_t n = 0, pages;
    int fd = open(path, O_RDONLY);
    void *p;

    assert_int_equal(fstat(fd, &st), 0);
    pages = ((size_t)st.st_size + PAGE - 1) / PAGE;
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    there = calloc(pages, 1);
    assert_true(p != MAP_FAILED && there && mincore(p, (size_t)st.st_size, there) == 0);
    for (size_t i = 0; i < pages; i++)
        n += there[i] & 1;
    free(there);
    munmap(p, (size_t)st.st_size);
    close(fd);
    return n * PAGE;
}

static void look(void *arg, uint64_t done, uint64_t total)
{
    struct watch *w = arg;
    size_t n = cached_bytes(w->path);

    (void)done;
    (void)total;
    w->most = n > w->most ? n : w->most;
}

/* One that holds all of them is no witness. */
static int is_in_memory(const char *folder)
{
    struct statfs fs;

    return statfs(folder, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static void import(const char *store, const char *keep)
{
    const char *arch = scratch_path("shape.json");

    assert_int_equal(tr_file_write(arch, shape, strlen(shape)), 0);
    assert_int_equal(tr_import(&(struct tr_import_params){.arch = arch,
                                                          .store = store,
                                                          .keep = keep,
                                                          .dtype = TR_BF16,
                                                          .generations = 1,
                                                          .payload = "x",
                                                          .payload_bytes = 1}),
                     0);
}

static void test_exports(void **state)
{
    const char *store = scratch_path("store"), *keep = scratch_path("source");
    char text[4352], tokenizer[4352], out[4352];
    struct tr_export_params p = {
        .keep = keep, .tokenizer = tokenizer, .out = out, .dtype = -1, .progress = look};

    (void)state;
    if (is_in_memory(scratch())) {
        print_message("skipped: %s is in memory\n", scratch());
        skip();
    }
    tiny_tokenizer(text, tokenizer);
    import(store, keep);
    assert_int_equal(tr_store_open(&p.store, store, TR_STORE_READ), 0);
    snprintf(out, sizeof(out), "%s", scratch_path("out"));
    for (int gguf = 0; gguf < 2; gguf++) {
        struct watch w = {.most = 0};

        snprintf(w.path, sizeof(w.path), "%s.tmp-%ld%s", out, (long)getpid(),
                 gguf ? "" : "/model.safetensors");
        p.progress_arg = &w;
        assert_int_equal((gguf ? tr_gguf : tr_export)(&p), 0);
        print_message("%s: at most %zu KiB of it in the page cache\n", gguf ? "GGUF" : "folder",
                      w.most >> 10);
        assert_true(w.most > 0 && w.most < MOST);
        assert_int_equal(tr_remove_tree(out), 0);
    }
    tr_store_close(p.store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exports)};

    scratch();
    return cmocka_run_group_tests_name("cached", tests, NULL, NULL);
}
