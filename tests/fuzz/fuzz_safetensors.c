/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a safetensors header and as a shard index (invariant 9). An input is a header, a
 * newline, and how many bytes of data the file has behind it. What is accepted must tile the data
 * exactly, and no memory may be kept.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/checkpoint/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
    if (!truth)
        abort();
}

static void check_header(const struct tr_st_header *h, uint64_t data_bytes)
{
    uint64_t end = 0;

    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const struct tr_st_tensor *t = &h->tensors[i];

        must(t->offset == end && t->bytes <= data_bytes - end && t->name[0]);
        must(t->dims >= 0 && t->dims <= TR_SAFETENSORS_DIMS);
        if (t->dtype >= 0) {
            uint64_t n = tr_dtype_size((enum tr_dtype)t->dtype);

            for (int k = 0; k < t->dims; k++)
                n *= (uint64_t)t->shape[k];
            must(n == t->bytes);
        }
        end += t->bytes;
    }
    must(end == data_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t before = tr_mem_now(TR_MEM_MISC), data_bytes = 0;
    const uint8_t *end = memchr(data, '\n', size);
    size_t n = end ? (size_t)(end - data) : size;
    struct tr_st_header h;
    json_t *index;

    for (size_t i = n + 1; i < size && data[i] >= '0' && data[i] <= '9'; i++)
        data_bytes = data_bytes * 10 + (data[i] - '0');
    if (tr_safetensors_parse((const char *)data, n, data_bytes, "fuzz", &h) == 0) {
        check_header(&h, data_bytes);
        tr_st_header_free(&h);
    }
    if (tr_safetensors_parse_index((const char *)data, n, "fuzz", &index) == 0) {
        const char *name;
        json_t *v;

        json_object_foreach(json_object_get(index, "weight_map"), name, v)
            must(!strchr(json_string_value(v), '/'));
        json_decref(index);
    }
    must(tr_mem_now(TR_MEM_MISC) == before);
    return 0;
}
