/* SPDX-License-Identifier: Apache-2.0
 *
 * Checksums of the files that are kept beside a run's weights. One flipped digit of config.json is
 * another model that trains almost right, so a run whose config.json has changed does not go on;
 * of the others, which an owner may want to edit before an export, `verify` tells.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/base/mem.h"
#include "src/checkpoint/keep.h"

#define CHUNK 65536
#define CHARS 16

static int sum_bytes(int fd, const char *path, XXH3_state_t *state, char text[CHARS + 1])
{
    char buf[CHUNK];
    uint64_t at = 0;
    ssize_t n;

    XXH3_64bits_reset(state);
    while ((n = pread(fd, buf, sizeof(buf), (off_t)at)) > 0) {
        XXH3_64bits_update(state, buf, (size_t)n);
        at += (uint64_t)n;
    }
    if (n < 0)
        return tr_error(-errno, "%s: cannot read: %s", path, strerror(errno));
    snprintf(text, CHARS + 1, "%016llx", (unsigned long long)XXH3_64bits_digest(state));
    return 0;
}

/* Of a regular file; a text without a character where it is none. */
static int sum_of(const char *folder, const char *name, char text[CHARS + 1])
{
    char *path = tr_path(folder, name);
    XXH3_state_t *state = XXH3_createState();
    int fd = path && state ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    int r = path && state ? 0 : -ENOMEM;
    struct stat st;

    text[0] = 0;
    if (r == 0 && fd < 0)
        r = tr_error(-errno, "%s: cannot open: %s", path, strerror(errno));
    if (r == 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        r = sum_bytes(fd, path, state, text);
    if (fd >= 0)
        close(fd);
    XXH3_freeState(state);
    tr_free(TR_MEM_MISC, path);
    return r;
}

struct sums {
    const char *folder;
    json_t *of; /* name: checksum */
};

static int add_sum(void *arg, const char *name)
{
    struct sums *s = arg;
    char text[CHARS + 1];
    int r = sum_of(s->folder, name, text);

    if (r < 0 || !text[0] || !strcmp(name, TR_KEEP_FILE))
        return r;
    return json_object_set_new(s->of, name, json_string(text));
}

json_t *tr_keep_sums(const char *folder)
{
    struct sums s = {folder, json_object()};

    if (s.of && tr_keep_names(folder, add_sum, &s) == 0)
        return s.of;
    json_decref(s.of);
    return NULL;
}

int tr_keep_check_sum(const struct tr_kept *k, const char *folder, const char *name)
{
    const char *was = json_string_value(json_object_get(k->sums, name));
    char is[CHARS + 1];
    int r = was ? sum_of(folder, name, is) : 0;

    if (r < 0 || !was || !strcmp(was, is))
        return r;
    return tr_error(-EBADMSG, "%s/%s: damaged, or changed since the import: checksum %s, it had %s",
                    folder, name, is, was);
}

int tr_keep_verify(const struct tr_kept *k, const char *folder,
                   void (*found)(void *arg, const char *text), void *arg)
{
    const char *name;
    json_t *sum;
    int damaged = 0;

    json_object_foreach(k->sums, name, sum) {
        if (tr_keep_check_sum(k, folder, name) == 0)
            continue;
        damaged++;
        found(arg, tr_error_message());
    }
    return damaged;
}
