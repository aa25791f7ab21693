/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a record of each task (invariant 9): what is asked of a model has texts, at least
 * one choice, and an answer among them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/text/task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static int look(void *arg, const struct tr_task_item *item)
{
    size_t *bytes = arg;

    must(item->n > 0 && item->n <= TR_TASK_CHOICES && item->gold >= 0 && item->gold < item->n);
    *bytes += strlen(item->context) + strlen(item->delimiter);
    for (int i = 0; i < item->n; i++)
        *bytes += strlen(item->choices[i]);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t before = tr_mem_now(TR_MEM_MISC) + tr_mem_now(TR_MEM_TEXT);
    size_t bytes = 0;
    json_t *record;

    if (tr_json_parse((const char *)data, size, "input", &record) < 0)
        return 0;
    for (int task = TR_TASK_NONE + 1; task < TR_TASKS; task++)
        tr_task_read((enum tr_task)task, record, "input", look, &bytes);
    json_decref(record);
    must(tr_mem_now(TR_MEM_MISC) + tr_mem_now(TR_MEM_TEXT) == before);
    return 0;
}
