/* SPDX-License-Identifier: Apache-2.0
 *
 * store.json, the description of a store: written once, as the last of its files; read before any
 * other, and nothing in it is believed before it is checked (invariant 9).
 */
#include <string.h>

#include "offload/store_private.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define FORMAT  "tailrace store"
#define VERSION 2 /* 1: one folder */

/* At most: TR_LAYOUT_PIECES pieces of 120 bytes each, twice over. */
#define JSON_LIMIT (1u << 30)

int tr_store_write_json(const struct tr_store *s)
{
    json_t *o = json_pack("{s:s, s:i, s:s, s:i}", "format", FORMAT, "version",
                          s->folders.n > 1 ? VERSION : 1, "uuid", s->shape.uuid, "generations",
                          (int)s->shape.generations);
    char *path = tr_path(s->folder, "store.json");
    int r;

    if (s->folders.n > 1)
        tr_json_add(&o, "folders", json_integer((json_int_t)s->folders.n));
    r = o && path ? 0 : -ENOMEM;
    if (r == 0 && s->folders.n > 1)
        r = tr_stripes_to_json(&s->stripes, &o);
    if (r == 0)
        r = tr_layout_to_json(&s->layout, &o);
    if (r == 0)
        r = tr_json_write_line(path, o, JSON_LIMIT);
    tr_free(TR_MEM_MISC, path);
    json_decref(o);
    return r;
}

static int is_uuid(const char *s)
{
    return s && strlen(s) == TR_UUID_CHARS && strspn(s, "0123456789abcdef-") == TR_UUID_CHARS;
}

static int take_json(struct tr_store *s, const json_t *o, const char *path)
{
    const char *format = json_string_value(json_object_get(o, "format"));
    const char *uuid = json_string_value(json_object_get(o, "uuid"));
    json_int_t version = json_integer_value(json_object_get(o, "version"));
    json_int_t generations = json_integer_value(json_object_get(o, "generations"));
    json_int_t folders = version > 1 ? json_integer_value(json_object_get(o, "folders")) : 1;
    int r;

    if (!format || strcmp(format, FORMAT) || version < 1)
        return tr_error(-EINVAL, "%s: not the description of a store", path);
    if (version > VERSION)
        return tr_error(-ENOTSUP,
                        "%s: store of version %lld, this program knows %d: use the newer "
                        "program that made it",
                        path, (long long)version, VERSION);
    if (!is_uuid(uuid) || (generations != 1 && generations != 2) || folders < 1)
        return tr_error(
            -EINVAL, "%s: \"uuid\", \"generations\" or \"folders\" missing or out of range", path);
    memcpy(s->shape.uuid, uuid, TR_UUID_CHARS + 1);
    s->shape.generations = (uint32_t)generations;
    if (folders != s->folders.n)
        return tr_error(-EINVAL,
                        "%s: the store %s has %lld folders, %u are given: name all of them, in "
                        "order, as --store DIR:DIR",
                        s->folder, uuid, (long long)folders, s->folders.n);
    r = tr_layout_from_json(&s->layout, o, path);
    s->stripes.n_folders = s->folders.n;
    return r < 0 || folders == 1 ? r : tr_stripes_from_json(&s->stripes, o, &s->layout, path);
}

int tr_store_read_json(struct tr_store *s)
{
    char *path = tr_path(s->folder, "store.json");
    json_t *o = NULL;
    int r = path ? tr_json_read(path, JSON_LIMIT, &o) : -ENOMEM;

    if (r == 0)
        r = take_json(s, o, path);
    json_decref(o);
    tr_free(TR_MEM_MISC, path);
    return r;
}
