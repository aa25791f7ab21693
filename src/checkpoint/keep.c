/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace-shards.json, written once at the import and read by everything that meets the run later:
 * resume, export, evaluation. It holds what config.json does not say: the type of each role,
 * what optimizer state there is and of what, what parameters have beside them, how gradients wait
 * for the next step, which adapters there are and for what they were made, which name a tied table
 * had, the files that the weights came in, and checksums of the other files that are kept; and
 * which store was made of them, so that another one of the same model is not taken for it. The
 * layout of the store is not in it, but follows from it: the same function makes the table again,
 * and tr_keep_check_store holds it against the store. So a program whose layout has changed refuses
 * an older run instead of reading its bytes in the wrong places.
 */
#include "src/checkpoint/keep.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/model/master.h"

#define FORMAT     "tailrace shards"
#define VERSION    2
#define FILE_BYTES (64u << 20)

/* By role, as layers of different types are refused on import; a role the family lacks has one all
 * the same, so that the list is always as long. */
static json_t *types_json(const struct tr_model *m)
{
    enum tr_dtype types[TR_ROLES];
    json_t *list = json_array();

    tr_model_types(m, types);
    for (int i = 0; i < TR_ROLES_BASE; i++)
        tr_json_append(&list, json_string(tr_dtype_name(types[i])));
    return list;
}

/* NULL, which leaves the key out: there are no adapters. */
static json_t *lora_json(const struct tr_lora *l, const char *from)
{
    char targets[TR_LORA_TEXT], *whole;
    json_t *o;

    if (!l->rank)
        return NULL;
    whole = from ? realpath(from, NULL) : NULL;
    tr_lora_targets_text(l->targets, targets);
    o = json_pack("{s:i, s:f, s:f, s:s, s:b, s:s, s:s*}", "rank", (int)l->rank, "alpha", l->alpha,
                  "dropout", l->dropout, "targets", targets, "trains_base", l->trains_base, "state",
                  tr_state_name(l->state), "base", whole);
    free(whole);
    return o;
}

int tr_keep_write(const char *folder, const struct tr_model *m, const struct tr_shards *s,
                  const char *from, const char *uuid)
{
    json_t *lora = lora_json(&m->lora, from), *o;
    char *path = tr_path(folder, TR_KEEP_FILE);
    int r = -ENOMEM;

    o = json_pack("{s:s, s:i, s:s, s:s, s:s*, s:s, s:s, s:b, s:o, s:o, s:o, s:o*}", "format",
                  FORMAT, "version", VERSION, "store_uuid", uuid, "state", tr_state_name(m->state),
                  "freeze", m->freeze, "parked", tr_parked_name(m->parked), "master",
                  tr_master_name(m->master), "tied_as_head", tr_model_tied_as_head(m),
                  "types_by_role", types_json(m), "shards", tr_shards_to_json(s), "sums",
                  tr_keep_sums(folder), "lora", lora);
    if (o && path && (lora || !m->lora.rank)) /* without it, it would be of another layout */
        r = tr_json_write(path, o);
    else
        tr_error(r, "%s: no memory for %s", folder, TR_KEEP_FILE);
    json_decref(o);
    tr_free(TR_MEM_MISC, path);
    return r;
}

static int read_types(const json_t *root, enum tr_dtype types[TR_ROLES])
{
    const json_t *list = json_object_get(root, "types_by_role");

    if (json_array_size(list) != TR_ROLES_BASE)
        return -EINVAL;
    for (int i = 0; i < TR_ROLES_BASE; i++) {
        const char *name = json_string_value(json_array_get(list, (size_t)i));

        if (!name || tr_dtype_parse(name, &types[i]) < 0)
            return -EINVAL;
    }
    return 0;
}

static int read_lora(struct tr_kept *k, const json_t *o, const char *where, struct tr_lora *l)
{
    const char *targets = json_string_value(json_object_get(o, "targets"));
    const char *base = json_string_value(json_object_get(o, "base"));

    if (!o)
        return 0;
    l->rank = (int32_t)json_integer_value(json_object_get(o, "rank"));
    l->alpha = json_number_value(json_object_get(o, "alpha"));
    l->dropout = json_number_value(json_object_get(o, "dropout"));
    l->trains_base = json_is_true(json_object_get(o, "trains_base"));
    if (l->rank < 1 || l->rank > TR_LORA_MAX_RANK || !(l->alpha > 0) || !targets ||
        tr_lora_parse_targets(targets, &l->targets) < 0 ||
        tr_state_parse(json_string_value(json_object_get(o, "state")), &l->state) < 0)
        return tr_error(-EINVAL, "%s: \"lora\" is damaged", where);
    k->base = base ? tr_strdup(TR_MEM_MISC, base) : NULL;
    return base && !k->base ? -ENOMEM : 0;
}

static int read_model(struct tr_kept *k, const json_t *root, const char *where,
                      const struct tr_model_config *config)
{
    enum tr_dtype types[TR_ROLES];
    struct tr_model_params p = {
        .config = config,
        .dtypes = types,
    };
    const char *format = json_string_value(json_object_get(root, "format"));
    int r;

    if (!format || strcmp(format, FORMAT))
        return tr_error(-EINVAL, "%s: not a file of this program", where);
    if (json_integer_value(json_object_get(root, "version")) != VERSION)
        return tr_error(-ENOTSUP, "%s: of another version of this program", where);
    if (read_types(root, types) < 0)
        return tr_error(-EINVAL, "%s: \"types_by_role\" is damaged", where);
    if (tr_state_parse(json_string_value(json_object_get(root, "state")), &p.state) < 0)
        return tr_error(-EINVAL, "%s: \"state\" names no optimizer state", where);
    if (json_object_get(root, "parked") && /* a file from before there was such is whole, too */
        tr_parked_parse(json_string_value(json_object_get(root, "parked")), &p.parked) < 0)
        return tr_error(-EINVAL, "%s: \"parked\" names no type of gradients", where);
    if (json_object_get(root, "master") &&
        tr_master_parse(json_string_value(json_object_get(root, "master")), &p.master) < 0)
        return tr_error(-EINVAL, "%s: \"master\" names nothing that parameters have beside them",
                        where);
    p.tied_as_head = json_is_true(json_object_get(root, "tied_as_head"));
    p.freeze = json_string_value(json_object_get(root, "freeze"));
    k->sums = json_incref(json_object_get(root, "sums"));
    r = read_lora(k, json_object_get(root, "lora"), where, &p.lora);
    if (r == 0)
        r = tr_model_open(&k->model, &p);
    if (r == 0)
        r = tr_master_check(k->model, p.master);
    if (r == 0)
        r = tr_shards_from_json(&k->shards, json_object_get(root, "shards"), k->model, where);
    return r;
}

int tr_keep_parse(struct tr_kept **out, const char *text, size_t bytes, const char *where,
                  const struct tr_model_config *config)
{
    struct tr_kept *k = tr_alloc(TR_MEM_MISC, sizeof(*k));
    json_t *root = NULL;
    int r = k ? tr_json_parse(text, bytes, where, &root) : -ENOMEM;

    if (r == 0)
        r = read_model(k, root, where, config);
    json_decref(root);
    *out = r == 0 ? k : NULL;
    if (r < 0)
        tr_keep_close(k);
    return r;
}

int tr_keep_open(struct tr_kept **out, const char *folder)
{
    char *config_path = tr_path(folder, "config.json"), *path = tr_path(folder, TR_KEEP_FILE);
    struct tr_model_config *config = tr_alloc(TR_MEM_MISC, sizeof(*config));
    char *text = NULL;
    size_t bytes;
    int r = config && config_path && path ? tr_config_read(config_path, config) : -ENOMEM;

    *out = NULL;
    if (r == 0)
        r = tr_file_read(path, FILE_BYTES, &text, &bytes);
    if (r == 0)
        r = tr_keep_parse(out, text, bytes, path, config);
    if (r == 0 && (r = tr_keep_check_sum(*out, folder, "config.json")) < 0) {
        tr_keep_close(*out);
        *out = NULL;
    }
    tr_free(TR_MEM_TEXT, text);
    tr_free(TR_MEM_MISC, config);
    tr_free(TR_MEM_MISC, config_path);
    tr_free(TR_MEM_MISC, path);
    return r;
}

void tr_keep_store_uuid(const char *folder, char uuid[TR_KEEP_UUID])
{
    char *path = tr_path(folder, TR_KEEP_FILE);
    json_t *root = NULL;
    const char *named;

    uuid[0] = 0;
    if (path && tr_json_read(path, FILE_BYTES, &root) == 0) {
        named = json_string_value(json_object_get(root, "store_uuid"));
        if (named && strlen(named) < TR_KEEP_UUID)
            strcpy(uuid, named);
    }
    json_decref(root);
    tr_free(TR_MEM_MISC, path);
}

void tr_keep_close(struct tr_kept *k)
{
    if (!k)
        return;
    json_decref(k->sums);
    tr_shards_free(&k->shards);
    tr_model_close(k->model);
    tr_free(TR_MEM_MISC, k->base);
    tr_free(TR_MEM_MISC, k);
}

/* Spans and pieces decide where bytes lie; names only show that the same thing lies there. */
static int same_layout(const struct tr_layout *a, const struct tr_layout *b)
{
    if (a->n_spans != b->n_spans || a->n_pieces != b->n_pieces || a->n_segments != b->n_segments)
        return 0;
    for (uint32_t i = 0; i < a->n_spans; i++)
        if (a->spans[i].offset != b->spans[i].offset || a->spans[i].bytes != b->spans[i].bytes ||
            a->spans[i].segment != b->spans[i].segment || a->spans[i].pool != b->spans[i].pool ||
            a->spans[i].first_piece != b->spans[i].first_piece)
            return 0;
    for (uint32_t i = 0; i < a->n_pieces; i++)
        if (a->pieces[i].offset != b->pieces[i].offset ||
            a->pieces[i].bytes != b->pieces[i].bytes ||
            a->pieces[i].tensor_offset != b->pieces[i].tensor_offset ||
            strcmp(a->pieces[i].name, b->pieces[i].name))
            return 0;
    return 1;
}

int tr_keep_check_store(const struct tr_kept *k, const struct tr_store *s)
{
    if (same_layout(&k->model->layout, tr_store_layout(s)))
        return 0;
    return tr_error(-EINVAL, "%s: holds another model than the run's config.json describes",
                    tr_store_folder(s));
}
