/* SPDX-License-Identifier: Apache-2.0
 *
 * The checksum is looked at first: until it holds, no other byte of the record means anything.
 */
#include "offload/commit.h"

#include <endian.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/hash.h"
#include "src/base/mem.h"

#define VERSION 1u

#define SECTOR_BYTES 512u /* the least that is written whole */
#define SECTOR_KNOWN 16u  /* bytes of it that must be known, to tell garbage from damage */

#define TRIED_BYTES 65536u /* of a record that is tried: seconds, which grow with the square */

enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_FLAGS = 12,
    AT_SEQUENCE = 16,
    AT_SPANS = 24,
    AT_PIECES = 28,
    AT_PAYLOAD_BYTES = 32,
    AT_GENERATIONS = 36,
    AT_UUID = 56,
    AT_PAYLOAD = 96,
    AT_GENERATION = AT_PAYLOAD + TR_PAYLOAD_BYTES,
};

static const char magic[8] = {'t', 'a', 'i', 'l', 'r', 'a', 'c', 'e'};

static void put32(unsigned char *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, 4);
}

static void put64(unsigned char *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, 8);
}

static uint32_t get32(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return le32toh(v);
}

static uint64_t get64(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return le64toh(v);
}

static size_t at_hashes(const struct tr_commit_shape *shape)
{
    return tr_round_up(AT_GENERATION + (size_t)shape->n_spans, 8);
}

size_t tr_commit_bytes(const struct tr_commit_shape *shape)
{
    return tr_round_up(at_hashes(shape) + 8 * (size_t)shape->n_pieces + 8, TR_STORE_ALIGN);
}

int tr_commit_alloc(struct tr_commit *c, const struct tr_commit_shape *shape)
{
    memset(c, 0, sizeof(*c));
    c->generation = tr_alloc_array(TR_MEM_MISC, shape->n_spans, 1);
    c->hash = tr_alloc_array(TR_MEM_MISC, shape->n_pieces, 8);
    if (c->generation && c->hash)
        return 0;
    tr_commit_free(c);
    return -ENOMEM;
}

void tr_commit_free(struct tr_commit *c)
{
    tr_free(TR_MEM_MISC, c->generation);
    tr_free(TR_MEM_MISC, c->hash);
    c->generation = NULL;
    c->hash = NULL;
}

void tr_commit_copy(struct tr_commit *to, const struct tr_commit *from,
                    const struct tr_commit_shape *shape)
{
    to->sequence = from->sequence;
    to->flags = from->flags;
    to->payload_bytes = from->payload_bytes;
    memcpy(to->payload, from->payload, sizeof(to->payload));
    memcpy(to->generation, from->generation, shape->n_spans);
    memcpy(to->hash, from->hash, 8 * (size_t)shape->n_pieces);
}

/* What every record of a store begins with. */
static void put_constants(const struct tr_commit_shape *shape, unsigned char head[AT_PAYLOAD])
{
    memset(head, 0, AT_PAYLOAD);
    memcpy(head + AT_MAGIC, magic, sizeof(magic));
    put32(head + AT_VERSION, VERSION);
    put32(head + AT_SPANS, shape->n_spans);
    put32(head + AT_PIECES, shape->n_pieces);
    put32(head + AT_GENERATIONS, shape->generations);
    memcpy(head + AT_UUID, shape->uuid, TR_UUID_CHARS);
}

void tr_commit_pack(const struct tr_commit_shape *shape, const struct tr_commit *c, void *buf)
{
    unsigned char *p = buf;
    size_t bytes = tr_commit_bytes(shape), hashes = at_hashes(shape);

    memset(p, 0, bytes);
    put_constants(shape, p);
    put32(p + AT_FLAGS, c->flags);
    put64(p + AT_SEQUENCE, c->sequence);
    put32(p + AT_PAYLOAD_BYTES, c->payload_bytes);
    memcpy(p + AT_PAYLOAD, c->payload, c->payload_bytes);
    memcpy(p + AT_GENERATION, c->generation, shape->n_spans);
    for (uint32_t i = 0; i < shape->n_pieces; i++)
        put64(p + hashes + 8 * (size_t)i, c->hash[i]);
    put64(p + bytes - 8, XXH3_64bits(p, bytes - 8));
}

static int all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return 0;
    return 1;
}

/* The checksum held, so these are the bytes that somebody meant to write: but was it this store,
 * and this version of the program? */
static int check(const struct tr_commit_shape *shape, const unsigned char *p, const char *where)
{
    if (memcmp(p + AT_MAGIC, magic, sizeof(magic)))
        return tr_error(-EINVAL, "%s: not a commit record", where);
    if (get32(p + AT_VERSION) > VERSION)
        return tr_error(-ENOTSUP,
                        "%s: commit record of version %u, this program knows %u: use the "
                        "newer program that wrote it",
                        where, get32(p + AT_VERSION), VERSION);
    if (memcmp(p + AT_UUID, shape->uuid, TR_UUID_CHARS))
        return tr_error(-EINVAL, "%s: commit record of another store (%.36s)", where, p + AT_UUID);
    if (get32(p + AT_SPANS) != shape->n_spans || get32(p + AT_PIECES) != shape->n_pieces ||
        get32(p + AT_GENERATIONS) != shape->generations ||
        get32(p + AT_PAYLOAD_BYTES) > TR_PAYLOAD_BYTES || get64(p + AT_SEQUENCE) == 0 ||
        get32(p + AT_VERSION) == 0 || get32(p + AT_FLAGS) & ~TR_COMMIT_OPEN)
        return tr_error(-EINVAL, "%s: commit record does not fit the layout in store.json", where);
    for (uint32_t i = 0; i < shape->n_spans; i++)
        if (p[AT_GENERATION + i] >= shape->generations)
            return tr_error(-EINVAL, "%s: span %u in generation %u of %u", where, i,
                            p[AT_GENERATION + i], shape->generations);
    return 0;
}

int tr_commit_parse(const struct tr_commit_shape *shape, const void *buf, size_t bytes,
                    const char *where, struct tr_commit *c)
{
    const unsigned char *p = buf;
    size_t hashes = at_hashes(shape);
    int r;

    if (bytes != tr_commit_bytes(shape))
        return tr_error(-EBADMSG, "%s: %zu bytes, a commit record of this store has %zu", where,
                        bytes, tr_commit_bytes(shape));
    if (get64(p + bytes - 8) != XXH3_64bits(p, bytes - 8)) {
        if (all_zero(p, bytes))
            return tr_error(-ENODATA, "%s: no commit record yet", where);
        return tr_error(-EBADMSG, "%s: commit record torn or damaged (checksum)", where);
    }
    r = check(shape, p, where);
    if (r < 0)
        return r;
    c->sequence = get64(p + AT_SEQUENCE);
    c->flags = get32(p + AT_FLAGS);
    c->payload_bytes = get32(p + AT_PAYLOAD_BYTES);
    memcpy(c->payload, p + AT_PAYLOAD, sizeof(c->payload));
    memcpy(c->generation, p + AT_GENERATION, shape->n_spans);
    for (uint32_t i = 0; i < shape->n_pieces; i++)
        c->hash[i] = get64(p + hashes + 8 * (size_t)i);
    return 0;
}

int tr_commit_was_whole(void *buf, size_t bytes)
{
    unsigned char *p = buf;
    uint64_t sum = get64(p + bytes - 8), off = sum ^ XXH3_64bits(p, bytes - 8);

    if (bytes > TRIED_BYTES)
        return 0;
    if (!(off & (off - 1)))
        return 1; /* the bit is in the checksum itself */
    for (size_t i = 0; i < 8 * (bytes - 8); i++) {
        unsigned char bit = (unsigned char)(1u << i % 8);
        int holds;

        p[i / 8] ^= bit;
        holds = XXH3_64bits(p, bytes - 8) == sum;
        p[i / 8] ^= bit;
        if (holds)
            return 1;
    }
    return 0;
}

/* A record as far as it is known without its checksum. */
struct known {
    const unsigned char *record;
    const struct tr_commit_shape *shape;
    unsigned char head[AT_PAYLOAD];
    size_t payload_end, hashes, hashes_end, bytes;
    int numbered; /* its number and flags may be right */
};

enum { RIGHT, WRONG, UNKNOWN };

static int judge_head(const struct known *k, size_t at)
{
    if (at >= AT_FLAGS && at < AT_SPANS)
        return k->numbered ? RIGHT : WRONG;
    if (at >= AT_PAYLOAD_BYTES && at < AT_GENERATIONS)
        return UNKNOWN;
    return k->record[at] == k->head[at] ? RIGHT : WRONG;
}

static int judge(const struct known *k, size_t at)
{
    if (at < AT_PAYLOAD)
        return judge_head(k, at);
    if (at < k->payload_end || (at >= k->hashes && at < k->hashes_end) || at >= k->bytes - 8)
        return UNKNOWN;
    if (at >= AT_GENERATION && at < AT_GENERATION + k->shape->n_spans)
        return k->record[at] < k->shape->generations ? RIGHT : WRONG;
    return k->record[at] ? WRONG : RIGHT;
}

/* Neither right, nor something else altogether, nor what a slot is made with or erased to. */
static int is_damaged_sector(const struct known *k, size_t from)
{
    unsigned n[3] = {0};

    for (size_t at = from; at < from + SECTOR_BYTES; at++)
        n[judge(k, at)]++;
    return n[WRONG] && n[WRONG] <= n[RIGHT] && n[WRONG] + n[RIGHT] >= SECTOR_KNOWN &&
           !all_zero(k->record + from, SECTOR_BYTES);
}

int tr_commit_is_damaged(const struct tr_commit_shape *shape, const void *buf, size_t bytes,
                         const struct tr_commit *newest)
{
    struct known k = {.record = buf, .shape = shape, .bytes = bytes};
    uint64_t number = get64(k.record + AT_SEQUENCE);
    uint32_t payload = get32(k.record + AT_PAYLOAD_BYTES);

    put_constants(shape, k.head);
    k.numbered = (number == newest->sequence + 1 || number + 1 == newest->sequence) &&
                 !(get32(k.record + AT_FLAGS) & ~TR_COMMIT_OPEN);
    if (payload > TR_PAYLOAD_BYTES || payload < newest->payload_bytes)
        payload = newest->payload_bytes;
    k.payload_end = AT_PAYLOAD + payload;
    k.hashes = at_hashes(shape);
    k.hashes_end = k.hashes + 8 * (size_t)shape->n_pieces;
    for (size_t at = 0; at < bytes; at += SECTOR_BYTES)
        if (is_damaged_sector(&k, at))
            return 1;
    return 0;
}
