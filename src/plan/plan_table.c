/* SPDX-License-Identifier: Apache-2.0
 *
 * A plan's memory by kind, as users read it. The rows add up to the peak: what no row names is in
 * the last one.
 */
#include "src/plan/plan.h"

#include <stdio.h>

#include "src/base/json.h"

static void row(struct tr_plan_row *r, uint64_t bytes, const char *kind)
{
    snprintf(r->kind, sizeof(r->kind), "%s", kind);
    r->bytes = bytes;
}

static void row_slots(struct tr_plan_row *r, const struct tr_plan *p, const char *kind, int pool)
{
    int n = p->by_parts ? 1 : tr_plan_pools_with(pool);
    uint64_t bytes = 0;
    uint32_t slots = p->slots[pool];

    r->bytes = 0;
    for (int i = pool; i < pool + n; i++) {
        bytes += p->slot_bytes[i];
        slots = p->slots[i] < slots ? p->slots[i] : slots;
        r->bytes += p->pool[i].bytes;
    }
    snprintf(r->kind, sizeof(r->kind), "%s (%u x %.1f MiB)", kind, slots, (double)bytes / 1048576);
}

/* How many there are at once (invariant 4). */
static const char *gradients(const struct tr_plan *p)
{
    if (p->parked)
        return "weight gradients (all, until the norm is known)";
    if (p->in.fused)
        return "weight gradients (norms and biases alone)";
    if (p->in.group)
        return "weight gradients (a group, until its norm is known)";
    if (p->in.model->parked == TR_PARKED_F32) /* the others are made where they wait */
        return p->grad.bytes ? "weight gradients (an embedding's slice, final norm)"
                             : "weight gradient (of the final norm)";
    if (p->held)
        return "weight gradients (a table, for its second sweep)";
    if (!p->several && !p->in.apart)
        return "weight gradient (one tensor)";
    return p->by_parts ? "weight gradients (one matrix and its small tensors)"
                       : "weight gradients (one layer)";
}

int tr_plan_table(const struct tr_plan *p, struct tr_plan_row rows[TR_PLAN_ROWS])
{
    uint64_t shared = p->shared_frame.bytes, known = 0;
    int n = 0;

    row_slots(&rows[n++], p, p->by_parts ? "slots, streams per matrix" : "block slots",
              TR_SLOTS_BLOCK);
    row_slots(&rows[n++], p, "table slots", TR_SLOTS_TABLE);
    if (p->slots[TR_SLOTS_BLOCK_STATE] && !p->in.apart) {
        row_slots(&rows[n++], p, p->by_parts ? "state slots" : "block state slots",
                  TR_SLOTS_BLOCK_STATE);
        row_slots(&rows[n++], p, "table state slots", TR_SLOTS_TABLE_STATE);
    }
    if (p->slots[TR_SLOTS_BLOCK_PARKED]) {
        row_slots(&rows[n++], p, "gradient slots", TR_SLOTS_BLOCK_PARKED);
        row_slots(&rows[n++], p, "table gradient slots", TR_SLOTS_TABLE_PARKED);
    }
    snprintf(rows[n].kind, sizeof(rows[n].kind), "block inputs (%u of %u x %.1f MiB)",
             p->slots[TR_SLOTS_BOUNDARY], tr_plan_boundaries(p),
             (double)p->slot_bytes[TR_SLOTS_BOUNDARY] / 1048576);
    rows[n++].bytes = p->pool[TR_SLOTS_BOUNDARY].bytes;
    row(&rows[n++], shared + p->act.bytes + (p->in.train ? 0 : p->mlp_out.bytes),
        "activations of one block");
    snprintf(rows[n].kind, sizeof(rows[n].kind), "activations kept (%u of %d x %.1f MiB)",
             p->slots[TR_SLOTS_FRAME], p->keep, (double)p->slot_bytes[TR_SLOTS_FRAME] / 1048576);
    rows[n++].bytes = p->pool[TR_SLOTS_FRAME].bytes;
    row(&rows[n++], p->dx.bytes + p->back_scratch.bytes, "activation gradients");
    row(&rows[n++], p->grad.bytes + p->norm_grad.bytes, gradients(p));
    row(&rows[n++],
        p->logits.bytes + p->head_x.bytes +
            (p->dlogits.offset == p->logits.offset ? 0 : p->dlogits.bytes),
        "logits of one slice");
    if (p->in.model->lora.rank)
        row(&rows[n++],
            p->pool[TR_SLOTS_ADAPTER].bytes + p->lora_x.bytes + p->lora_y.bytes + p->lora_h.bytes +
                p->lora_dh.bytes,
            "adapters, their state and scratch");
    if (p->cache.bytes)
        row(&rows[n++], p->cache.bytes, "keys and values kept");
    for (int i = 0; i < n; i++)
        known += rows[i].bytes;
    row(&rows[n++], p->peak - known, "tokens, tables, norms");
    return n;
}

json_t *tr_plan_table_json(const struct tr_plan *p)
{
    struct tr_plan_row rows[TR_PLAN_ROWS];
    int n = tr_plan_table(p, rows);
    json_t *list = json_array();

    for (int i = 0; i < n; i++)
        tr_json_append(&list, json_pack("{s:s, s:I}", "kind", rows[i].kind, "bytes",
                                        (json_int_t)rows[i].bytes));
    return list;
}
