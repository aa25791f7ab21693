/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotary angles. The frequencies follow transformers' rules for each type of scaling (Peng et al.,
 * "YaRN", arXiv 2309.00071, for yarn); everything is computed in double and rounded once.
 */
#include <math.h>

#include "src/base/err.h"
#include "src/model/config.h"

#define MOST_POSITIONS 2147483648.0 /* of max_position_embeddings, too */

/* Long waves are stretched by the factor, short ones kept, those between blended. */
static double llama3_freq(const struct tr_rope *r, double f)
{
    double original = (double)r->original_max_position, wave = 2 * M_PI / f, s;

    if (wave > original / r->low_freq)
        return f / r->factor;
    if (wave < original / r->high_freq)
        return f;
    s = (original / wave - r->low_freq) / (r->high_freq - r->low_freq);
    return (1 - s) * f / r->factor + s * f;
}

/* yarn: the dimension whose wave makes `rotations` turns within the original length. */
static double yarn_dim(const struct tr_rope *r, int head_dim, double rotations)
{
    return head_dim * log((double)r->original_max_position / (rotations * 2 * M_PI)) /
           (2 * log(r->theta));
}

static double yarn_freq(const struct tr_rope *r, int head_dim, int i, double f)
{
    double low = yarn_dim(r, head_dim, r->beta_fast), high = yarn_dim(r, head_dim, r->beta_slow);
    double ramp;

    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, head_dim - 1);
    if (low == high)
        high += 0.001;
    ramp = fmin(fmax((i - low) / (high - low), 0), 1);
    return f / r->factor * ramp + f * (1 - ramp);
}

double tr_rope_frequency(const struct tr_rope *r, int head_dim, int i)
{
    double f = pow(r->theta, -2.0 * i / head_dim);

    switch (r->type) {
    case TR_ROPE_LINEAR:
        return f / r->factor;
    case TR_ROPE_LLAMA3:
        return llama3_freq(r, f);
    case TR_ROPE_YARN:
        return yarn_freq(r, head_dim, i, f);
    case TR_ROPE_DEFAULT:
    case TR_ROPE_DYNAMIC:
        break;
    }
    return f;
}

int64_t tr_config_positions(const struct tr_model_config *c)
{
    const struct tr_rope *r = &c->rope;
    double n = r->type == TR_ROPE_LINEAR ? r->factor * (double)c->max_position
               : r->type == TR_ROPE_YARN ? r->factor * (double)r->original_max_position
                                         : 0;

    n = n < MOST_POSITIONS ? n : MOST_POSITIONS;
    return n > (double)c->max_position ? (int64_t)n : c->max_position;
}

int64_t tr_config_row_tokens(const struct tr_model_config *c)
{
    return c->max_position < TR_ROW_TOKENS ? c->max_position : TR_ROW_TOKENS;
}

int tr_rope_tables(const struct tr_model_config *c, int64_t n, float *cos_out, float *sin_out)
{
    int half = c->head_dim / 2;

    if (c->rope.type == TR_ROPE_DYNAMIC && n > c->max_position)
        return tr_error(
            -ENOTSUP,
            "rope scaling \"dynamic\" changes its frequencies past the %lld positions of "
            "max_position_embeddings: sequences of %lld are not supported; use at most "
            "--seq-len %lld",
            (long long)c->max_position, (long long)n, (long long)c->max_position);
    for (int i = 0; i < half; i++) {
        double f = tr_rope_frequency(&c->rope, c->head_dim, i);

        for (int64_t p = 0; p < n; p++) {
            cos_out[p * half + i] = (float)(cos((double)p * f) * c->rope.attention_factor);
            sin_out[p * half + i] = (float)(sin((double)p * f) * c->rope.attention_factor);
        }
    }
    return 0;
}
