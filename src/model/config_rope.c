/* SPDX-License-Identifier: Apache-2.0
 *
 * The rotary part of config.json. transformers before version 5 wrote rope_theta and rope_scaling,
 * since then one object rope_parameters; the type is called rope_type, in old files type.
 */
#include <math.h>
#include <string.h>

#include "src/model/config_parts.h"

#define MAX_THETA  1e12
#define MAX_FACTOR 1e6

static const char *const type_names[] = {
    [TR_ROPE_DEFAULT] = "default", [TR_ROPE_LINEAR] = "linear", [TR_ROPE_DYNAMIC] = "dynamic",
    [TR_ROPE_LLAMA3] = "llama3",   [TR_ROPE_YARN] = "yarn",
};

#define N_TYPES (sizeof(type_names) / sizeof(type_names[0]))

/* The object that describes the scaling, and its key; NULL where there is none. */
static const json_t *find_object(struct tr_keys *k, const char **key)
{
    const json_t *old = tr_keys_get(k, "rope_scaling"), *new = tr_keys_get(k, "rope_parameters");

    *key = new ? "rope_parameters" : "rope_scaling";
    if (old && new && !json_equal(old, new))
        tr_keys_refuse(k, "rope_scaling", "it contradicts \"rope_parameters\"");
    old = new ? new : old;
    if (old && !json_is_object(old))
        tr_keys_refuse(k, *key, "an object is needed");
    return old;
}

static enum tr_rope_type read_type(struct tr_keys *k)
{
    const char *old = tr_keys_text(k, "type", NULL), *name = tr_keys_text(k, "rope_type", old);

    if (name && old && strcmp(name, old))
        tr_keys_refuse(k, "type", "it contradicts \"rope_type\"");
    for (size_t i = 0; name && i < N_TYPES; i++)
        if (!strcmp(name, type_names[i]))
            return (enum tr_rope_type)i;
    if (name)
        tr_keys_refuse(k, tr_keys_get(k, "rope_type") ? "rope_type" : "type",
                       "supported are default, linear, dynamic, llama3 and yarn");
    return TR_ROPE_DEFAULT;
}

/* yarn: what cos and sin are multiplied by, so that attention keeps its temperature. */
static double mscale(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

static void read_yarn(struct tr_keys *k, const struct tr_model_config *c, struct tr_rope *r)
{
    double m = tr_keys_real(k, "mscale", 0, MAX_FACTOR, 0);
    double all = tr_keys_real(k, "mscale_all_dim", 0, MAX_FACTOR, 0);

    if (!tr_keys_get(k, "factor"))
        r->factor = (double)c->max_position / (double)r->original_max_position;
    r->attention_factor =
        m != 0 && all != 0 ? mscale(r->factor, m) / mscale(r->factor, all) : mscale(r->factor, 1);
    r->attention_factor =
        tr_keys_real(k, "attention_factor", 1e-6, MAX_FACTOR, r->attention_factor);
    r->beta_fast = tr_keys_real(k, "beta_fast", 0, MAX_FACTOR, 0);
    r->beta_slow = tr_keys_real(k, "beta_slow", 0, MAX_FACTOR, 0);
    r->beta_fast = r->beta_fast == 0 ? 32 : r->beta_fast;
    r->beta_slow = r->beta_slow == 0 ? 1 : r->beta_slow;
    if (r->beta_fast < r->beta_slow)
        tr_keys_refuse(k, "beta_fast", "it must not be below beta_slow");
    r->truncate = tr_keys_bool(k, "truncate", 1);
    if (r->theta <= 1)
        tr_keys_refuse(k, "rope_theta", "yarn needs more than 1");
}

static void read_llama3(struct tr_keys *k, struct tr_rope *r)
{
    r->low_freq = tr_keys_real(k, "low_freq_factor", 1e-6, MAX_FACTOR, NAN);
    r->high_freq = tr_keys_real(k, "high_freq_factor", 1e-6, MAX_FACTOR, NAN);
    if (r->high_freq <= r->low_freq)
        tr_keys_refuse(k, "high_freq_factor", "it must be above low_freq_factor");
}

static void read_scaling(struct tr_keys *k, const struct tr_model_config *c, struct tr_rope *r,
                         int64_t outer_original)
{
    int64_t original = outer_original ? outer_original : c->max_position;
    int64_t inner =
        tr_keys_int(k, "original_max_position_embeddings", 1, INT64_C(1) << 31, original);

    r->original_max_position = outer_original ? outer_original : inner;
    if (r->type == TR_ROPE_YARN && !tr_keys_get(k, "factor"))
        r->factor = 1;
    else
        r->factor = tr_keys_real(k, "factor", 1e-6, MAX_FACTOR, NAN);
    if (r->type == TR_ROPE_LLAMA3)
        read_llama3(k, r);
    if (r->type == TR_ROPE_YARN)
        read_yarn(k, c, r);
}

static void refuse_partial(struct tr_keys *k)
{
    if (tr_keys_real(k, "partial_rotary_factor", 0, 1, 1) != 1)
        tr_keys_refuse(k, "partial_rotary_factor", "only 1 is supported");
}

void tr_config_rope(struct tr_keys *k, struct tr_model_config *c)
{
    struct tr_rope *r = &c->rope;
    int64_t original = tr_keys_int(k, "original_max_position_embeddings", 1, INT64_C(1) << 31, 0);
    double outer_theta = tr_keys_real(k, "rope_theta", 1e-6, MAX_THETA, 10000);
    struct tr_keys in = *k;
    const char *key;

    *r = (struct tr_rope){
        .type = TR_ROPE_DEFAULT, .theta = outer_theta, .factor = 1, .attention_factor = 1};
    refuse_partial(k);
    in.object = find_object(k, &key);
    if (k->r < 0 || !in.object)
        return;
    in.prefix = strcmp(key, "rope_scaling") ? "rope_parameters." : "rope_scaling.";
    if (tr_keys_get(&in, "full_attention") || tr_keys_get(&in, "sliding_attention"))
        tr_keys_refuse(k, key, "one rope for all layers is needed");
    r->theta = tr_keys_real(&in, "rope_theta", 1e-6, MAX_THETA, outer_theta);
    r->type = read_type(&in);
    refuse_partial(&in);
    if (tr_keys_get(&in, "mrope_section"))
        tr_keys_refuse(&in, "mrope_section", "this is not supported");
    if (r->type != TR_ROPE_DEFAULT)
        read_scaling(&in, c, r, original);
    if (k->r == 0)
        k->r = in.r;
}
