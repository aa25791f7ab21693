/* SPDX-License-Identifier: Apache-2.0
 *
 * Commit records as bytes: what is packed is parsed again; no truncation and no flipped byte
 * passes.
 */
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "tests/offload/harness.h"

static const struct tr_commit_shape shape = {.uuid = "01234567-89ab-4cde-8f01-23456789abcd",
                                             .n_spans = 37,
                                             .n_pieces = 91,
                                             .generations = 2};

static void example(struct tr_commit *c, uint64_t sequence)
{
    assert_ok(tr_commit_alloc(c, &shape));
    c->sequence = sequence;
    c->payload_bytes = 11;
    memcpy(c->payload, "hello store", 11);
    for (uint32_t i = 0; i < shape.n_spans; i++)
        c->generation[i] = i % 3 == 1;
    fill_bytes(c->hash, 8 * shape.n_pieces, sequence);
}

static void round_trip(void **state)
{
    struct tr_commit a, b;
    size_t bytes = tr_commit_bytes(&shape);
    char *buf = malloc(bytes);

    (void)state;
    example(&a, 7);
    assert_ok(tr_commit_alloc(&b, &shape));
    assert_int_equal(bytes % TR_STORE_ALIGN, 0);
    tr_commit_pack(&shape, &a, buf);
    assert_ok(tr_commit_parse(&shape, buf, bytes, "here", &b));
    assert_int_equal(b.sequence, 7);
    assert_int_equal(b.payload_bytes, 11);
    assert_memory_equal(b.payload, "hello store", 12);
    assert_memory_equal(a.generation, b.generation, shape.n_spans);
    assert_memory_equal(a.hash, b.hash, 8 * shape.n_pieces);
    tr_commit_free(&a);
    tr_commit_free(&b);
    free(buf);
}

static void every_truncation(void **state)
{
    struct tr_commit a;
    size_t bytes = tr_commit_bytes(&shape);
    char *buf = malloc(bytes);

    (void)state;
    example(&a, 3);
    tr_commit_pack(&shape, &a, buf);
    for (size_t n = 0; n < bytes; n++) {
        char *cut = malloc(n ? n : 1); /* a sanitizer sees a read past it */

        memcpy(cut, buf, n);
        assert_int_equal(tr_commit_parse(&shape, cut, n, "cut", &a), -EBADMSG);
        free(cut);
        /* Torn: the rest of the block still holds zeros, or an older record. */
        cut = calloc(1, bytes);
        memcpy(cut, buf, n);
        if (memcmp(cut, buf, bytes))
            assert_true(tr_commit_parse(&shape, cut, bytes, "torn", &a) < 0);
        free(cut);
    }
    assert_ok(tr_commit_parse(&shape, buf, bytes, "whole", &a));
    tr_commit_free(&a);
    free(buf);
}

static void every_byte(void **state)
{
    struct tr_commit a;
    size_t bytes = tr_commit_bytes(&shape);
    unsigned char *buf = malloc(bytes);

    (void)state;
    example(&a, 3);
    tr_commit_pack(&shape, &a, buf);
    for (size_t i = 0; i < bytes; i++) {
        unsigned char flip = (unsigned char)(1u << i % 8);

        buf[i] ^= flip;
        assert_int_equal(tr_commit_parse(&shape, buf, bytes, "flipped", &a), -EBADMSG);
        buf[i] ^= flip;
    }
    assert_ok(tr_commit_parse(&shape, buf, bytes, "whole", &a));
    tr_commit_free(&a);
    free(buf);
}

/* Whole, but not for us: the shape of another store, and a version that is newer. */
static void strangers(void **state)
{
    struct tr_commit_shape other = shape;
    struct tr_commit a;
    size_t bytes = tr_commit_bytes(&shape);
    char *buf = calloc(1, bytes);

    (void)state;
    example(&a, 3);
    assert_int_equal(tr_commit_parse(&shape, buf, bytes, "zeros", &a), -ENODATA);
    tr_commit_pack(&shape, &a, buf);
    other.uuid[0] = 'f';
    expect_error(tr_commit_parse(&other, buf, bytes, "c0", &a), -EINVAL, "another store");
    other = shape;
    other.n_spans--;
    expect_error(tr_commit_parse(&other, buf, bytes, "c0", &a), -EINVAL, "layout");
    other = shape;
    other.generations = 1;
    expect_error(tr_commit_parse(&other, buf, bytes, "c0", &a), -EINVAL, "layout");
    tr_commit_free(&a);
    free(buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_byte),
        cmocka_unit_test(strangers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
