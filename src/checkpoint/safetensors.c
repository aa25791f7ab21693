/* SPDX-License-Identifier: Apache-2.0
 *
 * The header of a safetensors file, from its text to a table. Pure: no file is touched here, so
 * that every malformed text can be tried in a test and by a fuzzer. All arithmetic is checked;
 * memory is bounded by the text's length, which the caller bounds.
 */
#include "src/checkpoint/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define MAX_TENSORS    1000000u
#define MAX_NAME_BYTES 1024u
#define MAX_DEPTH      3

static const struct {
    const char *name;
    int bits;
} dtypes[] = {
    {"F32", 32},    {"BF16", 16},   {"F16", 16},        {"F64", 64},        {"I64", 64},
    {"U64", 64},    {"C64", 64},    {"I32", 32},        {"U32", 32},        {"I16", 16},
    {"U16", 16},    {"I8", 8},      {"U8", 8},          {"BOOL", 8},        {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6},
    {"F6_E3M2", 6}, {"F4", 4},
};

/* The tensor at hand, for messages. */
struct place {
    const char *where, *name;
};

static int refuse(const struct place *p, const char *what)
{
    return tr_error(-EINVAL, "%s: tensor %s: %s", p->where, p->name, what);
}

/* Nesting is looked at before the text is parsed, so that hostile depth never becomes memory. */
static int check_depth(const char *text, size_t bytes, const char *where)
{
    int depth = 0, in_string = 0;

    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];

        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '{' || c == '['))
            depth++;
        else if (!in_string && (c == '}' || c == ']'))
            depth--;
        if (depth > MAX_DEPTH)
            return tr_error(-EINVAL, "%s: header nested deeper than %d at byte %zu", where,
                            MAX_DEPTH, i);
    }
    return 0;
}

static int read_dtype(const struct place *p, const json_t *v, struct tr_st_tensor *t, int *bits)
{
    const char *name = json_string_value(v);

    if (!name)
        return refuse(p, "no \"dtype\"");
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        if (strcmp(name, dtypes[i].name))
            continue;
        snprintf(t->dtype_name, sizeof(t->dtype_name), "%s", name);
        *bits = dtypes[i].bits;
        t->dtype = i < TR_DTYPES ? (int)i : -1; /* the first rows stand in our own order */
        return 0;
    }
    return tr_error(-EINVAL, "%s: tensor %s: unknown dtype \"%.20s\"", p->where, p->name, name);
}

/* No dimensions at all is a scalar; a dimension of 0 makes a tensor without bytes. Both are in the
 * format, and neither is part of a model: source_check.c refuses them by shape. */
static int read_shape(const struct place *p, const json_t *v, struct tr_st_tensor *t)
{
    size_t dims = json_array_size(v);

    if (!json_is_array(v) || dims > TR_SAFETENSORS_DIMS)
        return refuse(p, "\"shape\" is not a list of at most 8 integers");
    t->dims = (int)dims;
    for (size_t i = 0; i < dims; i++) {
        const json_t *d = json_array_get(v, i);

        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return refuse(p, "\"shape\" has something else than integers from 0");
        t->shape[i] = json_integer_value(d);
    }
    return 0;
}

/* `end` is compared before it is used: from here on offset + bytes cannot overflow. */
static int read_offsets(const struct place *p, const json_t *v, uint64_t data_bytes,
                        struct tr_st_tensor *t)
{
    const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
    long long begin = json_integer_value(a), end = json_integer_value(b);

    if (json_array_size(v) != 2 || !json_is_integer(a) || !json_is_integer(b) || begin < 0)
        return refuse(p, "\"data_offsets\" is not a pair of integers from 0");
    if (end < begin)
        return tr_error(-EINVAL, "%s: tensor %s: data_offsets [%lld, %lld) end before they begin",
                        p->where, p->name, begin, end);
    if ((uint64_t)end > data_bytes)
        return tr_error(
            -EINVAL,
            "%s: tensor %s: data_offsets [%lld, %lld) reach past the file's %llu bytes of "
            "data: is it truncated?",
            p->where, p->name, begin, end, (unsigned long long)data_bytes);
    t->offset = (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    return 0;
}

/* Counted in bits, for the types that are narrower than a byte. */
static int check_size(const struct place *p, const struct tr_st_tensor *t, int bits)
{
    uint64_t n = (uint64_t)bits;

    for (int i = 0; i < t->dims; i++)
        if (__builtin_mul_overflow(n, (uint64_t)t->shape[i], &n))
            return refuse(p, "the product of \"shape\" overflows");
    if (n % 8)
        return refuse(p, "its bits do not fill whole bytes");
    if (n / 8 != t->bytes)
        return tr_error(-EINVAL,
                        "%s: tensor %s: data_offsets hold %llu bytes, dtype and shape make %llu",
                        p->where, p->name, (unsigned long long)t->bytes, (unsigned long long)n / 8);
    return 0;
}

/* Names go into messages and logs: what could forge a line of those is not let in. */
static int check_name(const char *name, const char *where)
{
    size_t n = strlen(name);

    if (!n || n > MAX_NAME_BYTES)
        return tr_error(-EINVAL, "%s: a tensor's name is empty or longer than %u bytes", where,
                        MAX_NAME_BYTES);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return tr_error(-EINVAL, "%s: a tensor's name has control characters", where);
    return 0;
}

static int read_tensor(const char *where, const char *name, const json_t *v, uint64_t data_bytes,
                       struct tr_st_tensor *t)
{
    struct place p = {where, name};
    int bits = 0, r = check_name(name, where);

    if (r < 0)
        return r;
    if (!json_is_object(v) || json_object_size(v) != 3)
        return refuse(&p, "exactly \"dtype\", \"shape\" and \"data_offsets\" are needed");
    r = read_dtype(&p, json_object_get(v, "dtype"), t, &bits);
    if (r == 0)
        r = read_shape(&p, json_object_get(v, "shape"), t);
    if (r == 0)
        r = read_offsets(&p, json_object_get(v, "data_offsets"), data_bytes, t);
    if (r == 0)
        r = check_size(&p, t, bits);
    if (r < 0)
        return r;
    t->name = tr_strdup(TR_MEM_MISC, name);
    return t->name ? 0 : -ENOMEM;
}

static int read_metadata(const json_t *v, const char *where, struct tr_st_header *out)
{
    const char *key;
    json_t *text;

    if (!json_is_object(v))
        return tr_error(-EINVAL, "%s: __metadata__ is not an object", where);
    json_object_foreach((json_t *)(uintptr_t)v, key, text)
        if (!json_is_string(text))
            return tr_error(-EINVAL, "%s: __metadata__: \"%.60s\" is not a string", where, key);
    out->metadata = json_incref((json_t *)(uintptr_t)v);
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct tr_st_tensor *x = a, *y = b;
    uint64_t xe = x->offset + x->bytes, ye = y->offset + y->bytes;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (xe != ye)
        return xe < ye ? -1 : 1;
    return strcmp(x->name, y->name); /* tensors without elements share a place */
}

/* Together with the check of each size this says that every byte of the file belongs to exactly one
 * tensor: nothing is read twice, nothing is hidden between. */
static int check_contiguous(const struct tr_st_header *h, uint64_t data_bytes, const char *where)
{
    uint64_t end = 0;

    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const struct tr_st_tensor *t = &h->tensors[i];

        if (t->offset != end)
            return tr_error(-EINVAL,
                            "%s: tensor %s: data_offsets [%llu, %llu) %s byte %llu, where "
                            "%s%s end",
                            where, t->name, (unsigned long long)t->offset,
                            (unsigned long long)(t->offset + t->bytes),
                            t->offset < end ? "overlap what ends at" : "leave a hole after",
                            (unsigned long long)end, i ? "the data of " : "the header",
                            i ? h->tensors[i - 1].name : " does");
        end = t->offset + t->bytes;
    }
    if (end != data_bytes)
        return tr_error(-EINVAL, "%s: %llu bytes behind the last tensor belong to nothing", where,
                        (unsigned long long)(data_bytes - end));
    return 0;
}

/* n_tensors counts an entry before it is read, so that what a half-read one owns is freed too. */
static int read_header(const json_t *root, uint64_t data_bytes, const char *where,
                       struct tr_st_header *out)
{
    size_t n = json_object_size(root);
    const char *name;
    json_t *v;
    int r = 0;

    if (!json_is_object(root))
        return tr_error(-EINVAL, "%s: the header is not a JSON object", where);
    if (n > MAX_TENSORS)
        return tr_error(-EINVAL, "%s: %zu tensors; at most %u are read", where, n, MAX_TENSORS);
    out->tensors = tr_alloc_array(TR_MEM_MISC, n, sizeof(*out->tensors));
    if (!out->tensors)
        return -ENOMEM;
    json_object_foreach((json_t *)(uintptr_t)root, name, v) {
        if (!strcmp(name, "__metadata__"))
            r = read_metadata(v, where, out);
        else
            r = read_tensor(where, name, v, data_bytes, &out->tensors[out->n_tensors++]);
        if (r < 0)
            return r;
    }
    qsort(out->tensors, out->n_tensors, sizeof(*out->tensors), by_offset);
    return check_contiguous(out, data_bytes, where);
}

int tr_safetensors_parse(const char *text, size_t bytes, uint64_t data_bytes, const char *where,
                         struct tr_st_header *out)
{
    json_t *root;
    int r;

    memset(out, 0, sizeof(*out));
    if (!bytes || text[0] != '{')
        return tr_error(-EINVAL, "%s: the header does not begin with '{': not a safetensors file",
                        where);
    r = check_depth(text, bytes, where);
    if (r == 0)
        r = tr_json_parse(text, bytes, where, &root);
    if (r < 0)
        return r;
    r = read_header(root, data_bytes, where, out);
    json_decref(root);
    if (r < 0)
        tr_st_header_free(out);
    return r;
}

void tr_st_header_free(struct tr_st_header *h)
{
    for (uint32_t i = 0; h->tensors && i < h->n_tensors; i++)
        tr_free(TR_MEM_MISC, h->tensors[i].name);
    tr_free(TR_MEM_MISC, h->tensors);
    json_decref(h->metadata);
    memset(h, 0, sizeof(*h));
}

/* A name that stays in its folder, whatever it is joined to. */
static int plain_file_name(const char *s)
{
    size_t n = strlen(s), suffix = sizeof(".safetensors") - 1;

    if (n <= suffix || n > 255 || strchr(s, '/') || strcmp(s + n - suffix, ".safetensors"))
        return 0;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return 0;
    return 1;
}

/* A name that leaves the folder would read any file of the machine into a model. */
int tr_safetensors_parse_index(const char *text, size_t bytes, const char *where, json_t **out)
{
    const char *name;
    json_t *map, *v;
    int r = check_depth(text, bytes, where);

    *out = NULL;
    if (r == 0)
        r = tr_json_parse(text, bytes, where, out);
    if (r < 0)
        return r;
    map = json_object_get(*out, "weight_map");
    if (!json_is_object(map) || !json_object_size(map)) {
        r = tr_error(-EINVAL, "%s: no \"weight_map\"", where);
        goto fail;
    }
    json_object_foreach(map, name, v) {
        r = check_name(name, where);
        if (r < 0)
            goto fail;
        if (!json_is_string(v) || !plain_file_name(json_string_value(v))) {
            r = tr_error(-EINVAL,
                         "%s: weight_map: tensor %s: its file is not a plain name that ends "
                         "in .safetensors",
                         where, name);
            goto fail;
        }
    }
    return 0;

fail:
    json_decref(*out);
    *out = NULL;
    return r;
}
