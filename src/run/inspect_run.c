/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a run stands, for its owner after a crash: what its newest commit says, what is left of the
 * one before, and what the same command would do now. Known from records alone; no parameter is
 * read.
 */
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/plan/plan_file.h"
#include "src/run/cursor.h"
#include "src/run/inspect.h"
#include "src/run/metrics_lines.h"

static json_t *before_json(const struct tr_cursor *c, const struct tr_glance *g)
{
    unsigned long long step = c->step;

    if (g->lost)
        return json_sprintf("was of step %llu: of %s and perhaps more, it is overwritten", step,
                            g->first);
    return json_sprintf("of step %llu; %u small pieces of it are whole, verify reads all", step,
                        (unsigned)g->looked);
}

/* "commits": how many the store can stand at; "falls_back_to": the step of the one before. */
json_t *tr_inspect_stands(struct tr_store *s, const struct tr_cursor *c)
{
    unsigned char payload[TR_PAYLOAD_BYTES];
    struct tr_glance g;
    struct tr_cursor before;
    int n = tr_store_glance_before(s, payload, sizeof(payload), &g);
    int has = n >= 0 && tr_cursor_parse(payload, (size_t)n, &before) == 0, whole = has && !g.lost;

    return json_pack("{s:I, s:I, s:I, s:b, s:i, s:o, s:o}", "epoch", (json_int_t)c->epoch, "tokens",
                     (json_int_t)c->tokens, "skipped", (json_int_t)c->skipped, "update_waits",
                     (int)(c->pending.is != 0), "commits", 1 + whole, "falls_back_to",
                     whole ? json_integer((json_int_t)before.step) : json_null(), "commit_before",
                     has ? before_json(&before, &g) : json_string("none"));
}

json_t *tr_inspect_resume(const json_t *o, const char *folder)
{
    long long done = json_integer_value(json_object_get(o, "steps_done")), all;
    int waits = json_is_true(json_object_get(json_object_get(o, "stands"), "update_waits"));
    char first[80] = "", last[80], name[48] = "model";
    struct tr_plan_file plan;
    int r = tr_plan_file_read(folder, &plan);

    if (r < 0 && r != -EINVAL)
        return json_sprintf("is refused: %s", tr_error_message());
    all = plan.steps;
    if (tr_plan_model_is_other(folder, plan.model_step, done))
        snprintf(name, sizeof(name), "model-%lld", done);
    if (waits)
        snprintf(first, sizeof(first), "applies the update of step %lld, then ", done);
    if (!all)
        snprintf(last, sizeof(last), "goes on with step %lld", done + 1);
    else if (done < all)
        snprintf(last, sizeof(last), "goes on with step %lld of %lld", done + 1, all);
    else if (!tr_folder_has(folder, name))
        snprintf(last, sizeof(last), "exports the model, as all %lld steps are done", all);
    else
        snprintf(last, sizeof(last), "has nothing to do: all %lld steps are done", all);
    return json_sprintf("%s%s%s", r < 0 ? "makes plan.json anew, which is damaged, then " : "",
                        first, last);
}

static json_t *told_json(const char *folder)
{
    struct tr_plan_file plan = {.steps = 0};

    tr_plan_file_read(folder, &plan);
    return json_pack("{s:I, s:I}", "step", (json_int_t)metrics_last_step(folder), "steps",
                     (json_int_t)plan.steps);
}

void tr_inspect_busy(json_t **o, const char *folder)
{
    json_t *resume = json_sprintf("is refused: %s", tr_error_message());

    tr_json_add(o, "told", told_json(folder));
    tr_json_add(o, "resume", resume);
}
