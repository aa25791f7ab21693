/* SPDX-License-Identifier: Apache-2.0 */
#include "src/infer/stops.h"

#include "src/base/json.h"

int infer_parse_stops(const char *text, size_t bytes, const char *where, int64_t ids[INFER_STOPS])
{
    const json_t *eos;
    json_t *root;
    int n = 0, r = tr_json_parse(text, bytes, where, &root);

    if (r < 0)
        return r;
    eos = json_object_get(root, "eos_token_id");
    if (json_is_integer(eos))
        ids[n++] = json_integer_value(eos);
    for (size_t i = 0; i < json_array_size(eos) && n < INFER_STOPS; i++)
        if (json_is_integer(json_array_get(eos, i)))
            ids[n++] = json_integer_value(json_array_get(eos, i));
    json_decref(root);
    return n;
}
