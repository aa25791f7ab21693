/* SPDX-License-Identifier: Apache-2.0
 *
 * Between config.c and config_rope.c.
 */
#ifndef TR_SRC_MODEL_CONFIG_PARTS_H
#define TR_SRC_MODEL_CONFIG_PARTS_H

#include "src/model/config.h"
#include "src/model/config_keys.h"

/* Reads rope_parameters, or rope_theta and rope_scaling; k is at the root of the configuration. The
 * shape and max_position have been read. An error stays in k->r. */
void tr_config_rope(struct tr_keys *k, struct tr_model_config *c);

#endif
