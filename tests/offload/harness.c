/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/offload/harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/mem.h"

#define MAX_FOLDERS 8192

void expect_error(int r, int code, const char *word)
{
    if (r != code)
        fail_msg("got %d (%s), expected %d", r, tr_error_message(), code);
    if (!strstr(tr_error_message(), word))
        fail_msg("'%s' is not in the message: %s", word, tr_error_message());
}

uint64_t rng_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t rng_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(rng_next(state) % n);
}

static char *folders[MAX_FOLDERS];
static int n_folders;

static void remove_folders(void)
{
    for (int i = 0; i < n_folders; i++) {
        tr_remove_tree(folders[i]);
        free(folders[i]);
    }
}

char *test_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    char *path = NULL;

    if (n_folders == 0)
        atexit(remove_folders);
    assert_true(n_folders < MAX_FOLDERS);
    assert_true(
        asprintf(&path, "%s/tr-offload-%d-%d", tmp ? tmp : "/tmp", (int)getpid(), n_folders) > 0);
    tr_remove_tree(path);
    folders[n_folders++] = path;
    return path;
}

char *test_folders(uint32_t n)
{
    struct tr_folders f = {.n = n};

    for (uint32_t i = 0; i < n; i++)
        f.path[i] = test_folder();
    return tr_folders_join(&f, NULL);
}

void flip_byte(const char *folder, const char *name, uint64_t offset)
{
    char *path = tr_path(folder, name);
    int fd = open(path, O_RDWR);
    unsigned char c;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, (off_t)offset), 1);
    c ^= 0x10;
    assert_int_equal(pwrite(fd, &c, 1, (off_t)offset), 1);
    fsync(fd); /* or O_DIRECT readers see the old page on some file systems */
    close(fd);
    tr_free(TR_MEM_MISC, path);
}

static char *name_text(const char *kind, uint32_t a, int64_t b)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%s%u", kind, a);

    if (b >= 0)
        snprintf(text + n, sizeof(text) - (size_t)n, ".%u", (uint32_t)b);
    return tr_strdup(TR_MEM_MISC, text);
}

static void add_span(struct tr_layout *l, const struct shape *shape, uint64_t *rng)
{
    uint32_t i = l->n_spans++;
    struct tr_span *s = &l->spans[i];
    uint64_t at = 0;

    s->segment = i;
    s->pool = i % shape->n_pools;
    s->first_piece = l->n_pieces;
    s->n_pieces = 1 + rng_below(rng, shape->max_pieces);
    s->offset = i ? s[-1].offset + s[-1].bytes : 0;
    l->segments[i].record = name_text("block ", i, -1);
    l->segments[i].kind = tr_strdup(TR_MEM_MISC, "params");
    for (uint32_t k = 0; k < s->n_pieces; k++) {
        struct tr_piece *p = &l->pieces[l->n_pieces++];

        p->name = name_text("tensor.", i, k);
        p->tensor_offset = 0;
        p->offset = at;
        p->bytes = 1 + rng_below(rng, (uint32_t)shape->max_bytes);
        at += tr_round_up(p->bytes, TR_STORE_ALIGN);
    }
    s->bytes = at;
}

void test_layout(struct tr_layout *l, const struct shape *shape)
{
    uint64_t rng = shape->seed;

    memset(l, 0, sizeof(*l));
    l->segments = tr_alloc_array(TR_MEM_MISC, shape->n_spans, sizeof(*l->segments));
    l->spans = tr_alloc_array(TR_MEM_MISC, shape->n_spans, sizeof(*l->spans));
    l->pieces =
        tr_alloc_array(TR_MEM_MISC, (size_t)shape->n_spans * shape->max_pieces, sizeof(*l->pieces));
    l->n_segments = shape->n_spans;
    for (uint32_t i = 0; i < shape->n_spans; i++)
        add_span(l, shape, &rng);
}

uint64_t span_max_bytes(const struct tr_layout *l, uint32_t pool)
{
    uint64_t most = TR_STORE_ALIGN;

    for (uint32_t i = 0; i < l->n_spans; i++)
        if (l->spans[i].pool == pool && l->spans[i].bytes > most)
            most = l->spans[i].bytes;
    return most;
}

void fill_bytes(void *p, size_t n, uint64_t seed)
{
    unsigned char *c = p;
    uint64_t state = seed;

    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = rng_next(&state);

        memcpy(c + i, &v, n - i < 8 ? n - i : 8);
    }
}

void fill_span(char *bytes, const struct tr_layout *l, uint32_t span, uint64_t version)
{
    const struct tr_span *s = &l->spans[span];

    for (uint32_t i = s->first_piece; i < s->first_piece + s->n_pieces; i++)
        fill_bytes(bytes + l->pieces[i].offset, l->pieces[i].bytes, version * 1000003 + i);
}

struct tr_store *test_store(const char *folder, const struct tr_layout *l, int generations,
                            const struct tr_io_hook *hook)
{
    static const double speed[TR_STORE_FOLDERS] = {3, 2, 4, 1, 1, 1, 1, 1};
    struct tr_io_hook own = {0};
    struct tr_store *s;
    char *buf = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);

    if (hook)
        own = *hook;
    own.speed = speed;
    assert_ok(tr_store_create_hooked(&s, folder, l, generations, &own));
    for (uint32_t i = 0; i < l->n_pieces; i++) {
        fill_bytes(buf, l->pieces[i].bytes, i);
        assert_ok(tr_store_write_piece(s, i, buf));
    }
    assert_ok(tr_store_commit(s, "start", 5));
    tr_free_pages(TR_MEM_IO, buf, TR_PIECE_BYTES);
    return s;
}
