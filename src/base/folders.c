/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/folders.h"

#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"

/* Bytes of the first name of the list, as it stands there. */
static size_t name_length(const char *list)
{
    size_t n = 0;

    while (list[n] && list[n] != ':')
        n += list[n] == '\\' && list[n + 1] == ':' ? 2 : 1;
    return n;
}

static char *take_name(const char *from, size_t n)
{
    char *name = tr_alloc(TR_MEM_MISC, n + 1);
    size_t used = 0;

    for (size_t i = 0; name && i < n; i++)
        if (from[i] != '\\' || from[i + 1] != ':')
            name[used++] = from[i];
    while (name && used > 1 && name[used - 1] == '/')
        name[--used] = 0;
    return name;
}

int tr_folders_parse(struct tr_folders *f, const char *list)
{
    memset(f, 0, sizeof(*f));
    for (const char *at = list;; at++) {
        size_t n = name_length(at);

        if (!n)
            return tr_error(-EINVAL, "%s: a folder of the store has no name", list);
        if (f->n == TR_STORE_FOLDERS)
            return tr_error(-EINVAL, "%s: a store has at most %u folders", list, TR_STORE_FOLDERS);
        f->path[f->n] = take_name(at, n);
        if (!f->path[f->n])
            return -ENOMEM;
        f->n++;
        at += n;
        if (!*at)
            return 0;
    }
}

void tr_folders_free(struct tr_folders *f)
{
    for (uint32_t i = 0; i < f->n; i++)
        tr_free(TR_MEM_MISC, f->path[i]);
    memset(f, 0, sizeof(*f));
}

static char *append(char *to, const char *name)
{
    for (; *name; name++) {
        if (*name == ':')
            *to++ = '\\';
        *to++ = *name;
    }
    return to;
}

char *tr_folders_join(const struct tr_folders *f, const char *base)
{
    size_t bytes = 1;
    char *list, *at;

    for (uint32_t i = 0; i < f->n; i++)
        bytes += 2 * strlen(f->path[i]) + 2 + (base ? 2 * strlen(base) : 0);
    list = at = tr_alloc(TR_MEM_MISC, bytes);
    for (uint32_t i = 0; list && i < f->n; i++) {
        if (i)
            *at++ = ':';
        if (base && f->path[i][0] != '/') {
            at = append(at, base);
            *at++ = '/';
        }
        at = append(at, f->path[i]);
    }
    return list;
}

char *tr_folders_one(const char *path)
{
    struct tr_folders f = {.path = {(char *)(uintptr_t)path}, .n = 1}; /* it is only read */

    return tr_folders_join(&f, NULL);
}

char *tr_folders_below(const char *folder, const char *name)
{
    char *path = tr_path(folder, name), *list = path ? tr_folders_one(path) : NULL;

    tr_free(TR_MEM_MISC, path);
    return list;
}
