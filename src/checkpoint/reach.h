/* SPDX-License-Identifier: Apache-2.0
 *
 * How far the links of a model folder are followed where its files are copied as they are. Folders
 * come from outside: a link in one may name any file of this user, which would then be in every
 * model that is exported.
 */
#ifndef TR_SRC_CHECKPOINT_REACH_H
#define TR_SRC_CHECKPOINT_REACH_H

#include <errno.h>

struct tr_reach {
    char *place[3];
};

/* Of the errors of a look at a path: a link leads to nothing, or to where we may not look. */
static inline int tr_reach_leads_nowhere(int error)
{
    return error == ENOENT || error == ELOOP || error == ENOTDIR || error == EACCES;
}

int tr_reach_open(struct tr_reach *r, const char *folder);
void tr_reach_close(struct tr_reach *r); /* what was zeroed, too */
/* 1: FOLDER/NAME may be copied; 0: it may not; or an error. */
int tr_reach_has(const struct tr_reach *r, const char *folder, const char *name);

#endif
