/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace-shards.json, written once at the import and read by everything that meets the run later:
 * resume, export, evaluation. It holds what config.json does not say: the type of each role,
 * what optimizer state there is and of what, what parameters have beside them, how gradients wait
 * for the next step, which name a tied table had, and the files that the weights came in. The
 * layout of the store is not in it, but follows from it: the same function makes the table again,
 * and tr_keep_check_store holds it against the store. So a program whose layout has changed refuses
 * an older run instead of reading its bytes in the wrong places.
 */
#include "src/keep.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/master.h"

#define FORMAT     "tailrace shards"
#define VERSION    2
#define FILE_BYTES (64u << 20)

/* By role, as layers of different types are refused on import; a role the family lacks has one all
 * the same, so that the list is always as long. */
static json_t *types_json(const struct tr_model *m)
{
    enum tr_dtype types[TR_ROLES];
    json_t *list = json_array();
    int bad = !list;

    tr_model_types(m, types);
    for (int i = 0; !bad && i < TR_ROLES; i++)
        bad = json_array_append_new(list, json_string(tr_dtype_name(types[i])));
    if (!bad)
        return list;
    json_decref(list);
    return NULL;
}

int tr_keep_write(const char *folder, const struct tr_model *m, const struct tr_shards *s)
{
    json_t *o = json_pack("{s:s, s:i, s:s, s:s*, s:s, s:s, s:b, s:o, s:o}", "format", FORMAT,
                          "version", VERSION, "state", tr_state_name(m->state), "freeze", m->freeze,
                          "parked", tr_parked_name(m->parked), "master", tr_master_name(m->master),
                          "tied_as_head", tr_model_tied_as_head(m), "types_by_role", types_json(m),
                          "shards", tr_shards_to_json(s));
    char *path = tr_path(folder, TR_KEEP_FILE);
    int r = -ENOMEM;

    if (o && path)
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

    if (json_array_size(list) != TR_ROLES)
        return -EINVAL;
    for (int i = 0; i < TR_ROLES; i++) {
        const char *name = json_string_value(json_array_get(list, (size_t)i));

        if (!name || tr_dtype_parse(name, &types[i]) < 0)
            return -EINVAL;
    }
    return 0;
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
    r = tr_model_open(&k->model, &p);
    if (r == 0)
        r = tr_master_check(k->model, p.master);
    if (r == 0)
        r = tr_shards_from_json(&k->shards, json_object_get(root, "shards"), k->model, where);
    return r;
}

static int read_files(struct tr_kept *k, const char *folder, struct tr_model_config *config)
{
    char *config_path = tr_path(folder, "config.json"), *path = tr_path(folder, TR_KEEP_FILE);
    json_t *root = NULL;
    int r = config_path && path ? tr_config_read(config_path, config) : -ENOMEM;

    if (r == 0)
        r = tr_json_read(path, FILE_BYTES, &root);
    if (r == 0)
        r = read_model(k, root, path, config);
    json_decref(root);
    tr_free(TR_MEM_MISC, config_path);
    tr_free(TR_MEM_MISC, path);
    return r;
}

int tr_keep_open(struct tr_kept **out, const char *folder)
{
    struct tr_kept *k = tr_alloc(TR_MEM_MISC, sizeof(*k));
    struct tr_model_config *config = tr_alloc(TR_MEM_MISC, sizeof(*config));
    int r = k && config ? read_files(k, folder, config) : -ENOMEM;

    tr_free(TR_MEM_MISC, config);
    *out = r == 0 ? k : NULL;
    if (r < 0)
        tr_keep_close(k);
    return r;
}

void tr_keep_close(struct tr_kept *k)
{
    if (!k)
        return;
    tr_shards_free(&k->shards);
    tr_model_close(k->model);
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
