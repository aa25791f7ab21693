/* SPDX-License-Identifier: Apache-2.0
 *
 * Which files of a folder travel with a model. Links are followed (model caches are made of them),
 * sub-folders and weights stay behind.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/checkpoint/keep.h"

static int ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), e = strlen(end);

    return n >= e && !strcmp(s + n - e, end);
}

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
                                       ".ckpt"};

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        if (ends_in(name, ends[i]))
            return 1;
    return ends_in(name, ".bin") &&
           (!strncmp(name, "pytorch_model", 13) || !strncmp(name, "adapter_model", 13));
}

static int copy_named(const char *from, const char *to, const char *name, int must_exist)
{
    char *a = tr_path(from, name), *b = tr_path(to, name);
    struct stat st;
    int r = a && b ? 0 : -ENOMEM;

    if (r == 0 && (must_exist || stat(a, &st) == 0))
        r = tr_file_copy(a, b);
    tr_free(TR_MEM_MISC, a);
    tr_free(TR_MEM_MISC, b);
    return r;
}

static int stat_file(const char *folder, const char *name, struct stat *st)
{
    char *path = tr_path(folder, name);
    int regular = path && stat(path, st) == 0 && S_ISREG(st->st_mode);

    tr_free(TR_MEM_MISC, path);
    return path ? regular : -ENOMEM;
}

/* 1: it travels; 0: it stays. */
static int travels(const char *from, const char *name, int all)
{
    struct stat st;
    int r = stat_file(from, name, &st), ours = !strcmp(name, TR_KEEP_FILE);

    if (r <= 0)
        return r;
    if (ours && !all)
        return tr_error(-EINVAL, "%s: has a file %s, a name that this program keeps for itself",
                        from, TR_KEEP_FILE);
    return all ? !ours : !is_weights(name) && (uint64_t)st.st_size <= TR_KEEP_FILE_BYTES;
}

int tr_keep_copy(const char *from, const char *to, int all)
{
    DIR *d = opendir(from);
    struct dirent *e;
    int r = 0;

    if (!d)
        return tr_error(-errno, "%s: cannot open the folder: %s", from, strerror(errno));
    while (r >= 0 && (e = readdir(d))) {
        r = travels(from, e->d_name, all);
        if (r > 0)
            r = copy_named(from, to, e->d_name, 1);
    }
    closedir(d);
    return r < 0 ? r : 0;
}

int tr_keep_note(const char *from, char *note, size_t room)
{
    DIR *d = opendir(from);
    struct dirent *e;
    struct stat st;
    int r = 0;

    if (!d)
        return tr_error(-errno, "%s: cannot open the folder: %s", from, strerror(errno));
    while (r >= 0 && (e = readdir(d))) {
        r = stat_file(from, e->d_name, &st);
        if (r > 0 && !is_weights(e->d_name) && (uint64_t)st.st_size > TR_KEEP_FILE_BYTES)
            snprintf(note, room, "%s/%s: larger than 256 MiB: left out", from, e->d_name);
    }
    closedir(d);
    return r < 0 ? r : 0;
}

int tr_keep_copy_tokenizer(const char *from, const char *to)
{
    static const char *const names[] = {"tokenizer.json",          "tokenizer_config.json",
                                        "special_tokens_map.json", "tokenizer.model",
                                        "added_tokens.json",       "chat_template.jinja"};
    int r = copy_named(from, to, names[0], !tr_folder_has(from, "tokenizer.model"));

    for (size_t i = 1; r == 0 && i < sizeof(names) / sizeof(names[0]); i++)
        r = copy_named(from, to, names[i], 0);
    return r;
}
