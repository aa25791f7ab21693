/* SPDX-License-Identifier: Apache-2.0
 *
 * A store as inspect describes it: its size, its segments and folders, and where the run stands
 * whose store it is.
 */
#include "src/base/err.h"
#include "src/run/cursor.h"
#include "src/run/inspect.h"
#include "src/run/papers.h"
#include "src/run/torn.h"

static json_t *segments_json(const struct tr_layout *l)
{
    json_t *list = json_array();
    uint32_t span = 0;

    for (uint32_t i = 0; i < l->n_segments; i++) {
        uint64_t bytes = 0;
        uint32_t spans = 0, pieces = 0;

        for (; span < l->n_spans && l->spans[span].segment == i; span++) {
            bytes += l->spans[span].bytes;
            pieces += l->spans[span].n_pieces;
            spans++;
        }
        tr_json_append(&list,
                       json_pack("{s:s, s:s, s:I, s:i, s:i}", "record", l->segments[i].record,
                                 "kind", l->segments[i].kind, "bytes", (json_int_t)bytes, "spans",
                                 (int)spans, "pieces", (int)pieces));
    }
    return list;
}

static json_t *folders_json(const struct tr_store *s)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < tr_store_folders(s); i++) {
        uint64_t bytes;
        const char *path = tr_store_folder_at(s, i, &bytes);

        tr_json_append(
            &list, json_pack("{s:s, s:I}", "path", path, "generation_bytes", (json_int_t)bytes));
    }
    return list;
}

static json_t *store_json(const struct tr_store *s, uint64_t sequence, size_t payload_bytes)
{
    const struct tr_layout *l = tr_store_layout(s);
    json_t *o = json_pack("{s:s, s:i, s:I, s:I, s:I, s:i, s:i, s:o}", "uuid", tr_store_uuid(s),
                          "generations", tr_store_generations(s), "commit", (json_int_t)sequence,
                          "payload_bytes", (json_int_t)payload_bytes, "generation_bytes",
                          (json_int_t)tr_layout_bytes(l), "spans", (int)l->n_spans, "pieces",
                          (int)l->n_pieces, "segments", segments_json(l));

    if (tr_store_folders(s) > 1)
        tr_json_add(&o, "folders", folders_json(s));
    return o;
}

/* Where a run stands. */
static json_t *stands_json(struct tr_store *s, const struct tr_cursor *c, const char *run)
{
    json_t *o = tr_inspect_stands(s, c);
    char text[1024];

    if (run_torn(run, s, c->step, text, sizeof(text)))
        tr_json_add(&o, "passed_over", json_string(text));
    return o;
}

int tr_inspect_store(json_t **o, const char *folders, const char *run)
{
    unsigned char payload[TR_PAYLOAD_BYTES];
    struct tr_cursor cursor;
    struct tr_store *s = NULL;
    size_t bytes;
    uint64_t sequence;
    int r = tr_store_open(&s, folders, TR_STORE_READ);

    if (r == 0 && run)
        r = run_check_store(run, s);
    if (r < 0) {
        tr_store_close(s);
        return r;
    }
    sequence = tr_store_payload(s, payload, sizeof(payload), &bytes);
    tr_json_add(o, "store", store_json(s, sequence, bytes));
    if (tr_cursor_parse(payload, bytes, &cursor) == 0) { /* a store need not be a run's */
        tr_json_add(o, "steps_done", json_integer((json_int_t)cursor.step));
        tr_json_add(o, "stands", stands_json(s, &cursor, run));
    }
    tr_store_close(s);
    return 0;
}
