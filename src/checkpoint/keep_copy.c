/* SPDX-License-Identifier: Apache-2.0
 *
 * Which files of a folder travel with a model. Links are followed (model caches are made of them)
 * as far as reach.h says, weights stay behind.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/base/utf8.h"
#include "src/checkpoint/keep.h"
#include "src/checkpoint/reach.h"

static int is_weights(const char *name)
{
    static const char *const ends[] = {".safetensors",
                                       ".safetensors.index.json",
                                       ".bin.index.json",
                                       ".pth",
                                       ".pt",
                                       ".gguf",
                                       ".h5",
                                       ".msgpack",
                                       ".ckpt",
                                       NULL};

    return tr_ends_in(name, ends) ||
           (tr_ends_in(name, (const char *const[]){".bin", NULL}) &&
            (!strncmp(name, "pytorch_model", 13) || !strncmp(name, "adapter_model", 13)));
}

/* A name may have the sub-folder before it. A size that stat tells may be less than there is to
 * read. */
static int copy_named(const char *from, const char *to, const char *name, uint64_t most)
{
    char *a = tr_path(from, name), *b = tr_path(to, name);
    char *templates = strchr(name, '/') ? tr_path(to, TR_KEEP_TEMPLATES) : NULL;
    int r = a && b ? 0 : -ENOMEM;

    if (r == 0 && strchr(name, '/'))
        r = templates ? tr_make_folder(templates) : -ENOMEM;
    if (r == 0)
        r = tr_file_copy(a, b, most);
    if (r == 0 && templates)
        r = tr_sync_folder(templates);
    tr_free(TR_MEM_MISC, a);
    tr_free(TR_MEM_MISC, b);
    tr_free(TR_MEM_MISC, templates);
    return r;
}

/* 1: a regular file; 0: something else, or a link to nothing, or to where we may not look. */
static int stat_file(const char *folder, const char *name, struct stat *st)
{
    char *path = tr_path(folder, name);
    int r = path ? stat(path, st) : -ENOMEM;

    if (path && r == 0)
        r = S_ISREG(st->st_mode);
    else if (path && tr_reach_leads_nowhere(errno))
        r = 0;
    else if (path)
        r = tr_error(-errno, "%s: cannot look at it: %s", path, strerror(errno));
    tr_free(TR_MEM_MISC, path);
    return r;
}

/* A configuration without its adapter would make readers look for that, or for another model. */
static int is_adapter(const char *name)
{
    return !strcmp(name, "adapter_config.json");
}

enum stays { STAYS_WEIGHTS = 1, STAYS_ADAPTER, STAYS_LARGE, STAYS_NAME, STAYS_OUTSIDE };

static const char *const whys[] = {
    [STAYS_ADAPTER] = "the adapter is no part of the model (--adapter; or merge it first)",
    [STAYS_LARGE] = "larger than 256 MiB",
    [STAYS_NAME] = "its name is not UTF-8",
    [STAYS_OUTSIDE] = "a link that leads out of the folder",
};

/* Why a file of a source does not travel (enum stays); 0: it does. */
static int stays(const struct tr_reach *reach, const char *from, const char *name,
                 const struct stat *st)
{
    int has;

    if (is_weights(name))
        return STAYS_WEIGHTS;
    if (is_adapter(name))
        return STAYS_ADAPTER;
    if ((uint64_t)st->st_size > TR_KEEP_FILE_BYTES)
        return STAYS_LARGE;
    if (tr_utf8_valid(name, strlen(name)) < strlen(name)) /* what was kept is listed in JSON */
        return STAYS_NAME;
    has = tr_reach_has(reach, from, name);
    return has < 0 ? has : has ? 0 : STAYS_OUTSIDE;
}

static int check_reach(const struct tr_reach *reach, const char *from, const char *name)
{
    int has = tr_reach_has(reach, from, name);

    return has ? has
               : tr_error(-EINVAL, "%s/%s: %s; put the file itself there", from, name,
                          whys[STAYS_OUTSIDE]);
}

/* 1: it travels; 0: it stays. */
static int travels(const struct tr_reach *reach, const char *from, const char *name, int all)
{
    struct stat st;
    int r = stat_file(from, name, &st), ours = !strcmp(name, TR_KEEP_FILE);

    if (r <= 0)
        return r;
    if (ours && !all)
        return tr_error(-EINVAL, "%s: has a file %s, a name that this program keeps for itself",
                        from, TR_KEEP_FILE);
    if (all)
        return ours ? 0 : check_reach(reach, from, name);
    r = stays(reach, from, name, &st);
    return r < 0 ? r : !r;
}

struct journey {
    struct tr_reach reach;
    const char *from, *to;
    int all;
    char *note;
    size_t room;
};

static int copy_one(void *arg, const char *name)
{
    const struct journey *j = arg;
    int r = travels(&j->reach, j->from, name, j->all);

    if (r > 0)
        r = copy_named(j->from, j->to, name, j->all ? UINT64_MAX : TR_KEEP_FILE_BYTES);
    return r;
}

static int note_one(void *arg, const char *name)
{
    const struct journey *j = arg;
    struct stat st;
    int r = stat_file(j->from, name, &st);

    if (r > 0)
        r = stays(&j->reach, j->from, name, &st);
    if (r > STAYS_WEIGHTS)
        snprintf(j->note, j->room, "%s/%s: %s: left out", j->from, name, whys[r]);
    return r;
}

static int go(struct journey *j, tr_keep_name_fn *fn)
{
    int r = tr_reach_open(&j->reach, j->from);

    if (r >= 0)
        r = tr_keep_names(j->from, fn, j);
    tr_reach_close(&j->reach);
    return r;
}

int tr_keep_copy(const char *from, const char *to, int all)
{
    return go(&(struct journey){.from = from, .to = to, .all = all}, copy_one);
}

int tr_keep_note(const char *from, char *note, size_t room)
{
    return go(&(struct journey){.from = from, .note = note, .room = room}, note_one);
}

static const char *const tokenizer_names[] = {"tokenizer.json",
                                              "tokenizer_config.json",
                                              "special_tokens_map.json",
                                              "tokenizer.model",
                                              "vocab.json",
                                              "merges.txt",
                                              "added_tokens.json",
                                              "chat_template.jinja",
                                              TR_KEEP_TEMPLATES "/tool_use.jinja"};

#define TOKENIZER_NAMES (sizeof(tokenizer_names) / sizeof(tokenizer_names[0]))

int tr_keep_copy_tokenizer(const char *from, const char *to)
{
    struct tr_reach reach = {0};
    struct stat st;
    int r = tr_reach_open(&reach, from);

    for (size_t i = 0; r >= 0 && i < TOKENIZER_NAMES; i++) {
        const char *name = tokenizer_names[i];
        int must = i == 0 && !tr_folder_has(from, "tokenizer.model");
        int there = stat_file(from, name, &st);
        int why = there > 0 ? stays(&reach, from, name, &st) : 0;

        r = there < 0 ? there : why;
        if (r > 0)
            r = must ? tr_error(-EINVAL, "%s/%s: no file of a tokenizer: %s", from, name, whys[why])
                     : 0;
        else if (r == 0 && (there || must)) /* which says that it is missing */
            r = copy_named(from, to, name, TR_KEEP_FILE_BYTES);
    }
    tr_reach_close(&reach);
    return r < 0 ? r : 0;
}

static int remove_named(const char *folder, const char *name)
{
    char *path = tr_path(folder, name);
    int r = path ? 0 : -ENOMEM;

    if (path && unlink(path) < 0 && !tr_reach_leads_nowhere(errno))
        r = tr_error(-errno, "%s: cannot remove: %s", path, strerror(errno));
    tr_free(TR_MEM_MISC, path);
    return r;
}

int tr_keep_change_tokenizer(const char *from, const char *kept)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < TOKENIZER_NAMES; i++)
        r = remove_named(kept, tokenizer_names[i]);
    return r < 0 ? r : tr_keep_copy_tokenizer(from, kept);
}
