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

/* What of each sector a torn write may leave: the old record, the new one, garbage, zeros. */
static void tear(unsigned char *to, const unsigned char *old, const unsigned char *new,
                 uint64_t *rng)
{
    size_t bytes = tr_commit_bytes(&shape);

    for (size_t at = 0; at < bytes; at += 512) {
        uint32_t dice = rng_below(rng, 6);

        memcpy(to + at, dice < 2 ? old + at : new + at, 512);
        if (dice == 4)
            fill_bytes(to + at, 512, rng_next(rng));
        if (dice == 5)
            memset(to + at, (int)rng_below(rng, 2) * 0x5a, 512);
    }
}

struct torn {
    struct tr_commit newest;
    unsigned char *old, *new, *record;
    size_t bytes;
};

static void make_torn(struct torn *t)
{
    struct tr_commit c;

    t->bytes = tr_commit_bytes(&shape);
    t->old = malloc(t->bytes);
    t->new = malloc(t->bytes);
    t->record = malloc(t->bytes);
    example(&t->newest, 8);
    example(&c, 7);
    tr_commit_pack(&shape, &c, t->old);
    tr_commit_free(&c);
    example(&c, 9);
    tr_commit_pack(&shape, &c, t->new);
    tr_commit_free(&c);
}

static void free_torn(struct torn *t)
{
    tr_commit_free(&t->newest);
    free(t->old);
    free(t->new);
    free(t->record);
}

/* No torn write is called damage. */
static void torn_is_not_damaged(void **state)
{
    uint64_t rng = 5;
    struct torn t;

    (void)state;
    make_torn(&t);
    for (int i = 0; i < 2000; i++) {
        tear(t.record, t.old, t.new, &rng);
        assert_int_equal(tr_commit_is_damaged(&shape, t.record, t.bytes, &t.newest), 0);
    }
    memset(t.record, 0, t.bytes);
    assert_int_equal(tr_commit_is_damaged(&shape, t.record, t.bytes, &t.newest), 0);
    free_torn(&t);
}

/* Several bytes that are wrong are damage wherever the record is known without its checksum: all of
 * it but the payload, the checksums (91 of 8 bytes, behind the generations) and small numbers. */
static void damaged_is_known(void **state)
{
    uint64_t rng = 6;
    struct torn t;
    size_t hashes;

    (void)state;
    make_torn(&t);
    hashes = (96 + TR_PAYLOAD_BYTES + shape.n_spans + 7) / 8 * 8;
    for (size_t at = 0; at + 8 <= t.bytes - 8; at += 8) {
        int payload = at >= 96 && at < 96 + 11, counted = at == 32;
        int hash = at >= hashes && at < hashes + 8 * (size_t)shape.n_pieces;

        memcpy(t.record, at / 8 % 2 ? t.old : t.new, t.bytes);
        for (int i = 0; i < 8; i++)
            t.record[at + i] ^= (unsigned char)(2 + rng_below(&rng, 254));
        if (!payload && !counted && !hash &&
            !tr_commit_is_damaged(&shape, t.record, t.bytes, &t.newest))
            fail_msg("8 bytes at %zu pass for a torn write", at);
    }
    memcpy(t.record, t.new, t.bytes);
    t.record[16] ^= 2; /* the number, of no record that there could be */
    assert_int_equal(tr_commit_is_damaged(&shape, t.record, t.bytes, &t.newest), 1);
    free_torn(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),          cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_byte),          cmocka_unit_test(strangers),
        cmocka_unit_test(torn_is_not_damaged), cmocka_unit_test(damaged_is_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
