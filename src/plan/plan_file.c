/* SPDX-License-Identifier: Apache-2.0 */
#include "src/plan/plan_file.h"

#include <stdio.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define FILE_BYTES (1u << 20)

/* Longer than it can be: damaged, as is what is no text. */
static int take_text(const json_t *o, const char *key, char *out, size_t room)
{
    const json_t *v = json_object_get(o, key);

    if (!v)
        return 0;
    if (!json_is_string(v) || json_string_length(v) >= room)
        return -EINVAL;
    snprintf(out, room, "%s", json_string_value(v));
    return 0;
}

static int64_t take_step(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_integer(v) && json_integer_value(v) >= 0 ? json_integer_value(v) : -1;
}

int tr_plan_file_parse(const char *text, size_t bytes, const char *where, struct tr_plan_file *p)
{
    json_t *o;
    int r = tr_json_parse(text, bytes, where, &o);

    *p = (struct tr_plan_file){.model_step = -1};
    if (r < 0)
        return r;
    p->steps = json_integer_value(json_object_get(o, "steps"));
    p->model_step = take_step(o, "model_step");
    if (!json_is_object(o) || p->steps < 0 ||
        take_text(o, "store_uuid", p->store_uuid, sizeof(p->store_uuid)) < 0 ||
        take_text(o, "bits", p->bits, sizeof(p->bits)) < 0 ||
        take_text(o, "data_hash", p->data_hash, sizeof(p->data_hash)) < 0)
        r = tr_error(-EINVAL,
                     "%s: is damaged: what it says of the run's store and device is not "
                     "believed",
                     where);
    json_decref(o);
    return r;
}

int tr_plan_file_read(const char *run, struct tr_plan_file *p)
{
    char *path = tr_path(run, "plan.json"), *text = NULL;
    size_t bytes = 0;
    int r = path ? 0 : -ENOMEM;

    *p = (struct tr_plan_file){.model_step = -1};
    if (r == 0 && tr_folder_has(run, "plan.json")) {
        r = tr_file_read(path, FILE_BYTES, &text, &bytes);
        if (r == 0)
            r = tr_plan_file_parse(text, bytes, path, p);
        tr_free(TR_MEM_TEXT, text);
    }
    tr_free(TR_MEM_MISC, path);
    return r;
}

/* Of an older run nobody has written down the step; the model of this one may lie beside it. */
int tr_plan_model_is_other(const char *run, int64_t known, int64_t step)
{
    char *out = tr_path(run, "model"), name[48];
    int full = out && tr_folder_is_empty(out) == 0;

    tr_free(TR_MEM_MISC, out);
    snprintf(name, sizeof(name), "model-%lld", (long long)step);
    return full && (known < 0 ? tr_folder_has(run, name) : known != step);
}
