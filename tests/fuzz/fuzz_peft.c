/* SPDX-License-Identifier: Apache-2.0
 *
 * adapter_config.json: whatever it says, what is taken from it is in its bounds.
 */
#include <math.h>
#include <stdlib.h>

#include "src/base/json.h"
#include "src/checkpoint/peft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tr_lora lora;
    json_t *root;

    if (tr_json_parse((const char *)data, size, "fuzz", &root) < 0)
        return 0;
    if (tr_peft_parse(root, "fuzz", &lora) == 0 &&
        (lora.rank < 1 || lora.rank > TR_LORA_MAX_RANK || !isfinite(tr_lora_scale(&lora)) ||
         !(lora.dropout >= 0 && lora.dropout < 1)))
        abort();
    json_decref(root);
    return 0;
}
