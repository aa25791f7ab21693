/* SPDX-License-Identifier: Apache-2.0
 *
 * The folders of a store as one text, "DIR[:DIR...]", the way users and run.yaml give them. The
 * first is the store's own: it holds the description and the commits. A colon that belongs to a
 * name is written "\:".
 */
#ifndef TR_BASE_FOLDERS_H
#define TR_BASE_FOLDERS_H

#include <stdint.h>

#include "src/base/mem.h"

#define TR_STORE_FOLDERS 8u

struct tr_folders {
    char *path[TR_STORE_FOLDERS]; /* without slashes at their ends */
    uint32_t n;
};

/* -EINVAL where a name is empty or there are too many. f is to be freed in either case. */
int tr_folders_parse(struct tr_folders *f, const char *list);
void tr_folders_free(struct tr_folders *f);

/* The list again, each relative name below `base` (NULL: as it is); a TR_MEM_MISC string, or NULL.
 */
char *tr_folders_join(const struct tr_folders *f, const char *base);
/* The list of this one folder, whatever its name: a TR_MEM_MISC string, or NULL. */
char *tr_folders_one(const char *path);
char *tr_folders_below(const char *folder, const char *name); /* of FOLDER/NAME */

#endif
