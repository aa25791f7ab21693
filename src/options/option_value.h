/* SPDX-License-Identifier: Apache-2.0
 *
 * What src/options/options.c needs of single values beyond tr_option_set.
 */
#ifndef TR_SRC_OPTIONS_OPTION_VALUE_H
#define TR_SRC_OPTIONS_OPTION_VALUE_H

#include <stdio.h>

#include "src/options/option_yaml.h"
#include "src/options/options.h"

void tr_option_unset(const struct tr_option *option, void *params);
/* "name: value" in the form that tr_option_set reads; 0 and nothing where the option is not set. */
int tr_option_print(const struct tr_option *option, const void *params, FILE *f);

#endif
