/* SPDX-License-Identifier: Apache-2.0
 *
 * Paths that run.yaml names, and the host program may go to another folder while the run is open.
 * Of an option that is a name which is built in, or else a file, a word without a slash is the name
 * there, whatever the folder holds that it is read in: so what is a file has to be absolute.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/model/config.h"
#include "src/run/open.h"
#include "src/text/chat.h"

int run_make_absolute(const char **path)
{
    char *here, *whole;

    if (**path == '/')
        return 0;
    here = getcwd(NULL, 0);
    if (!here)
        return tr_error(-errno, "%s: %s", *path, strerror(errno));
    whole = tr_path(here, *path);
    free(here);
    if (!whole)
        return -ENOMEM;
    tr_free(TR_MEM_MISC, (void *)*path);
    *path = whole;
    return 0;
}

/* One that has gone is one by its ending; a word is the misspelt name that it looks like. */
static int tell_file(const char **text)
{
    return strchr(*text, '.') || access(*text, F_OK) == 0 ? run_make_absolute(text) : 0;
}

int run_tell_names(struct tr_train_params *p)
{
    int r = 0;

    if (p->arch && !tr_config_is_shape(p->arch))
        r = tell_file(&p->arch);
    if (r == 0 && p->chat_template && !chat_is_name(p->chat_template))
        r = tell_file(&p->chat_template);
    return r;
}
