/* SPDX-License-Identifier: Apache-2.0
 *
 * How far the links of a model folder are followed where its files are copied as they are. Folders
 * come from outside: a link in one may name any file of this user, which would then be in every
 * model that is exported.
 */
#ifndef TR_SRC_CHECKPOINT_REACH_H
#define TR_SRC_CHECKPOINT_REACH_H

struct tr_reach {
    char *place[3];
};

int tr_reach_open(struct tr_reach *r, const char *folder);
void tr_reach_close(struct tr_reach *r); /* what was zeroed, too */
/* 1: FOLDER/NAME may be copied. */
int tr_reach_has(const struct tr_reach *r, const char *folder, const char *name);

#endif
