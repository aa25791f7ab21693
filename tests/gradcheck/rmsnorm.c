/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients of rmsnorm over rows and over heads (qk-norm), with three grains.
 */
#include "tests/gradcheck/grad.h"

static double loss(void *arg)
{
    const struct tr_op_rmsnorm *op = arg;

    grad_run(TR_OP_RMSNORM, op);
    return grad_dot(op->y, op->dy, op->rows * op->cols);
}

static void one(const char *name, int64_t rows_per_token, int64_t cols)
{
    static const int32_t grains[4] = {0, 4, 5, 11};
    struct tr_op_rmsnorm op = {.rows = 11 * rows_per_token, .cols = cols, .eps = 1e-3f};
    int64_t n = op.rows * cols;
    float *x = grad_values(n), *w = grad_values(cols);

    op.rows_per_token = rows_per_token;
    op.grains = (struct tr_ranges){3, grains};
    op.x = x;
    op.w = w;
    op.dy = grad_values(n);
    op.y = grad_zeros(n);
    op.rstd = grad_zeros(op.rows);
    op.dx = grad_zeros(n);
    op.dw = grad_zeros(cols);
    grad_run(TR_OP_RMSNORM, &op);
    grad_run(TR_OP_RMSNORM_GRAD, &op);
    grad_judge(&(struct grad_case){name, loss, &op, {{"x", x, op.dx, n}, {"w", w, op.dw, cols}}});
}

void grad_rmsnorm(void)
{
    one("rmsnorm", 1, 37);
    one("rmsnorm per head", 3, 16);
}
