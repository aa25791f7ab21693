/* SPDX-License-Identifier: Apache-2.0
 *
 * A file may really lie in the folder or below it; beside what config.json, which has been read as
 * one, leads to, as in a folder of links to a model; or in the blobs of a Hugging Face cache, where
 * snapshots/REVISION/NAME leads to blobs/HASH. A tokenizer.json may come from anywhere if it is
 * one.
 */
#include "src/checkpoint/reach.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/checkpoint/keep.h"

/* Without the last part of a path; NULL: there is none, or it is all. */
static char *parent_of(char *path)
{
    char *slash = path ? strrchr(path, '/') : NULL;

    if (!slash || slash == path) {
        free(path);
        return NULL;
    }
    *slash = 0;
    return path;
}

static char *real_path(const char *folder, const char *name)
{
    char *path = tr_path(folder, name), *real = path ? realpath(path, NULL) : NULL;

    tr_free(TR_MEM_MISC, path);
    return real;
}

static char *blobs_of(const char *folder)
{
    char *above = real_path(folder, ".."), *name = above ? strrchr(above, '/') : NULL;
    char *blobs = name && !strcmp(name, "/snapshots") ? real_path(folder, "../../blobs") : NULL;

    free(above);
    return blobs;
}

int tr_reach_open(struct tr_reach *r, const char *folder)
{
    r->place[0] = realpath(folder, NULL);
    r->place[1] = parent_of(real_path(folder, "config.json"));
    r->place[2] = blobs_of(folder);
    return r->place[0] ? 0 : tr_error(-errno, "%s: cannot open: %s", folder, strerror(errno));
}

void tr_reach_close(struct tr_reach *r)
{
    for (int i = 0; i < 3; i++)
        free(r->place[i]);
}

/* Any JSON with a secret in it is not one. */
static int is_tokenizer(const char *path, const char *name)
{
    json_t *o = NULL;
    int is = !strcmp(name, "tokenizer.json") && tr_json_read(path, TR_KEEP_FILE_BYTES, &o) == 0 &&
             json_object_get(json_object_get(o, "model"), "vocab");

    json_decref(o);
    return is;
}

int tr_reach_has(const struct tr_reach *r, const char *folder, const char *name)
{
    char *path = real_path(folder, name);
    int has = 0;

    if (!path && tr_reach_leads_nowhere(errno))
        return 0;
    if (!path)
        return tr_error(-errno, "%s/%s: cannot tell where it lies: %s", folder, name,
                        strerror(errno));
    for (int i = 0; !has && i < 3; i++) {
        size_t n = r->place[i] ? strlen(r->place[i]) : 0;

        has = n && !strncmp(path, r->place[i], n) && path[n] == '/' &&
              (i == 0 || !strchr(path + n + 1, '/'));
    }
    has = has || is_tokenizer(path, name);
    free(path);
    return has;
}
