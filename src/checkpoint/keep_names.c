/* SPDX-License-Identifier: Apache-2.0
 *
 * The names of a model folder's files: those at its top, and those of the one sub-folder that
 * belongs to a tokenizer.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/checkpoint/keep.h"
#include "src/checkpoint/reach.h"

/* NULL at the end. A folder that cannot be read to there would be a model without its config.json.
 */
static int next_entry(DIR *d, const char *folder, struct dirent **e)
{
    errno = 0;
    *e = readdir(d);
    if (*e || !errno)
        return 0;
    return tr_error(-errno, "%s: cannot read the folder: %s", folder, strerror(errno));
}

static int each_in(const char *folder, const char *before, tr_keep_name_fn *fn, void *arg)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    int r;

    if (!d)
        return tr_error(-errno, "%s: cannot open the folder: %s", folder, strerror(errno));
    while ((r = next_entry(d, folder, &e)) == 0 && e) {
        char name[sizeof(TR_KEEP_TEMPLATES) + 1 + sizeof(e->d_name)];

        snprintf(name, sizeof(name), "%s%s", before, e->d_name);
        if ((r = fn(arg, name)) < 0)
            break;
    }
    closedir(d);
    return r < 0 ? r : 0;
}

int tr_keep_names(const char *folder, tr_keep_name_fn *fn, void *arg)
{
    char *templates = tr_path(folder, TR_KEEP_TEMPLATES);
    struct stat st;
    int r = templates ? each_in(folder, "", fn, arg) : -ENOMEM;

    if (r == 0 &&
        (stat(templates, &st) == 0 ? S_ISDIR(st.st_mode) : !tr_reach_leads_nowhere(errno)))
        r = each_in(templates, TR_KEEP_TEMPLATES "/", fn, arg);
    tr_free(TR_MEM_MISC, templates);
    return r;
}
