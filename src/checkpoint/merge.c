/* SPDX-License-Identifier: Apache-2.0 */
#include "src/checkpoint/merge.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

void tr_merge_open(struct tr_merge *m, const struct tr_kept *k, struct tr_export_reader *reader)
{
    *m = (struct tr_merge){.reader = reader, .model = k->model};
}

void tr_merge_close(struct tr_merge *m)
{
    tr_free(TR_MEM_MISC, m->a);
    tr_free(TR_MEM_MISC, m->b);
    tr_free(TR_MEM_MISC, m->row);
    tr_free(TR_MEM_MISC, m->sum);
    memset(m, 0, sizeof(*m));
}

static int reserve(float **p, size_t *room, uint64_t n)
{
    float *more;

    if (n <= *room)
        return 0;
    more = tr_realloc(TR_MEM_MISC, *p, (size_t)n * sizeof(float));
    if (!more)
        return -ENOMEM;
    *p = more;
    *room = (size_t)n;
    return 0;
}

static int read_whole(struct tr_merge *m, const struct tr_tensor *t, float **p, size_t *room)
{
    uint64_t n = (uint64_t)t->rows * (uint64_t)t->cols;
    int r = reserve(p, room, n);

    return r < 0 ? r : tr_export_fill(m->reader, t, 0, (size_t)n, TR_F32, *p);
}

/* Reads the adapter of a matrix, unless it is at hand. 0: there is none. */
static int take_adapter(struct tr_merge *m, const struct tr_tensor *t)
{
    int target = t->layer < 0 ? -1 : tr_lora_target_of((int)t->role), r;
    const struct tr_block *block = t->layer < 0 ? NULL : &m->model->blocks[t->layer];
    const struct tr_tensor *tensors = m->model->tensors;

    if (target < 0 || block->tensor[TR_LORA_A(target)] < 0)
        return 0;
    if (m->at == t)
        return 1;
    m->at = NULL;
    r = read_whole(m, &tensors[block->tensor[TR_LORA_A(target)]], &m->a, &m->room[0]);
    if (r == 0)
        r = read_whole(m, &tensors[block->tensor[TR_LORA_B(target)]], &m->b, &m->room[1]);
    if (r == 0)
        r = reserve(&m->row, &m->room[2], (uint64_t)t->cols);
    if (r == 0)
        r = reserve(&m->sum, &m->room[3], (uint64_t)t->cols);
    if (r < 0)
        return r;
    m->at = t;
    return 1;
}

/* Elements [col, col + n) of a row, in m->row. Each element's sum is over k in order; the loop over
 * the elements is the inner one, as they lie side by side in memory. */
static int make_row(struct tr_merge *m, const struct tr_tensor *t, uint64_t row, uint64_t col,
                    size_t n)
{
    int32_t rank = m->model->lora.rank;
    float scale = tr_lora_scale(&m->model->lora);
    const float *b = m->b + row * (uint64_t)rank, *a = m->a + col;
    float *restrict sum = m->sum;
    int r = tr_export_fill(m->reader, t, row * (uint64_t)t->cols + col, n, TR_F32, m->row);

    if (r < 0)
        return r;
    memset(sum, 0, n * sizeof(*sum));
    for (int32_t k = 0; k < rank; k++, a += t->cols)
        for (size_t i = 0; i < n; i++)
            sum[i] += b[k] * a[i];
    for (size_t i = 0; i < n; i++)
        m->row[i] += scale * sum[i];
    return 0;
}

int tr_merge_fill(void *arg, const struct tr_tensor *t, uint64_t from, size_t n, enum tr_dtype type,
                  void *buf)
{
    struct tr_merge *m = arg;
    uint64_t cols = (uint64_t)t->cols;
    size_t done = 0;
    int r = take_adapter(m, t);

    if (r <= 0)
        return r < 0 ? r : tr_export_fill(m->reader, t, from, n, type, buf);
    while (done < n) {
        uint64_t at = from + done, col = at % cols;
        size_t now = cols - col < n - done ? (size_t)(cols - col) : n - done;

        if ((r = make_row(m, t, at / cols, col, now)) < 0)
            return r;
        if (tr_convert((char *)buf + done * tr_dtype_size(type), type, m->row, TR_F32, now) < 0)
            return tr_error(-ERANGE, "tensor %s: a merged value is too large for %s", t->name,
                            tr_dtype_name(type));
        done += now;
    }
    return 0;
}
