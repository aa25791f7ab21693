/* SPDX-License-Identifier: Apache-2.0 */
#include "src/text/data_pair.h"

#include "src/base/err.h"

int data_pair_find(struct data_pair *p, const char *where, enum tr_data_format format, json_t *o)
{
    int asked = format == TR_DATA_QUESTION;
    const char *first = asked ? "question" : "prompt", *second = asked ? "answer" : "completion";

    p->first = json_object_get(o, first);
    p->second = json_object_get(o, second);
    return json_is_string(p->first) && json_is_string(p->second)
               ? 0
               : tr_error(-EINVAL, "%s: \"%s\" and \"%s\" must be strings", where, first, second);
}

int data_pair_plain(struct data_pair *p, const char *where, enum tr_data_format format, json_t *o)
{
    struct data_pair raw;
    int r = data_pair_find(&raw, where, format, o);

    if (r < 0)
        return r;
    if (format == TR_DATA_QUESTION) {
        p->first = json_pack("s+%+", "Question: ", json_string_value(raw.first),
                             json_string_length(raw.first), "\nAnswer:");
        p->second =
            json_pack("s+%", " ", json_string_value(raw.second), json_string_length(raw.second));
    } else {
        p->first = json_incref(raw.first);
        p->second = json_incref(raw.second);
    }
    if (p->first && p->second)
        return 0;
    data_pair_free(p);
    return tr_error(-ENOMEM, "out of memory");
}

void data_pair_free(struct data_pair *p)
{
    json_decref(p->first);
    json_decref(p->second);
}
