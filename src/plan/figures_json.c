/* SPDX-License-Identifier: Apache-2.0
 *
 * Figures as a file. It may have been written by anyone (invariant 9): keys are known or refused,
 * and every number lies where a machine's can, so that no arithmetic on them can overflow.
 */
#include "src/plan/figures.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define FORMAT     "tailrace machine"
#define VERSION    2         /* 1: of one drive, which has no name */
#define MOST_BYTES (1 << 16) /* of the file */
#define OTHER_KEYS 7         /* format, version, name, device, cuda, threads, costs */

struct field {
    const char *name;
    size_t offset;
    double least, most;
};

#define REAL(member) #member, offsetof(struct tr_figures, member)

static const struct field reals[] = {
    {REAL(read), 1e3, 1e14}, {REAL(write), 1e3, 1e14},  {REAL(mixed), 1e3, 1e14},
    {REAL(flush), 0, 1e3},   {REAL(hash), 1e3, 1e14},   {REAL(host_copy), 1e3, 1e14},
    {REAL(in), 1e3, 1e14},   {REAL(out), 1e3, 1e14},    {REAL(both), 1e3, 1e14},
    {REAL(drag), 0, 1e-3},   {REAL(update), 1e3, 1e14},
};

/* In a file from before they were measured: what `update` is. */
static const struct field later[] = {{REAL(update_bf16), 1e3, 1e14},
                                     {REAL(update_8bit), 1e3, 1e14}};
/* In a file from before GPUs had two sizes of it: that of the kind of device. */
static const struct field grain = {"grain_tokens", 0, 1, 1 << 16};

static const struct field sizes[] = {
    {REAL(device_bytes), 0, 1e15},
    {REAL(host_bytes), 0, 1e15},
    {REAL(workspace_bytes), 0, 1e13},
};

/* Of each drive. */
static const struct field ways[] = {
    {"read", offsetof(struct tr_drive_rates, alone.read), 1e3, 1e14},
    {"write", offsetof(struct tr_drive_rates, alone.write), 1e3, 1e14},
    {"mixed", offsetof(struct tr_drive_rates, alone.mixed), 1e3, 1e14},
    {"beside_read", offsetof(struct tr_drive_rates, beside.read), 1e3, 1e14},
    {"beside_write", offsetof(struct tr_drive_rates, beside.write), 1e3, 1e14},
    {"beside_mixed", offsetof(struct tr_drive_rates, beside.mixed), 1e3, 1e14},
    {"flush", offsetof(struct tr_drive_rates, flush), 0, 1e3},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const char *width_name(int w)
{
    return w == TR_WIDTH_32 ? "32" : "16";
}

static json_t *costs_json(const struct tr_figures *f)
{
    json_t *o = json_object();

    for (int row = 0; row < TR_COST_ROWS; row++)
        for (int w = 0; w < TR_WIDTHS; w++) {
            const double *c = f->cost[row][w];
            char key[48];

            snprintf(key, sizeof(key), "%s %s", tr_cost_row_name((enum tr_cost_row)row),
                     width_name(w));
            tr_json_add(&o, key, json_pack("[f, f, f, f]", c[0], c[1], c[2], c[3]));
        }
    return o;
}

static void add_reals(json_t **o, const void *of, const struct field *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tr_json_add(o, f[i].name, json_real(*(const double *)((const char *)of + f[i].offset)));
}

static json_t *drives_json(const struct tr_figures *f)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < f->n_drives; i++) {
        json_t *o = json_pack("{s:s}", "folder", f->drive[i].folder);

        add_reals(&o, &f->drive[i].rates, ways, COUNT(ways));
        tr_json_append(&list, o);
    }
    return list;
}

int tr_figures_write(const char *path, const struct tr_figures *f)
{
    json_t *o = json_pack("{s:s, s:i, s:s, s:s, s:b, s:i, s:i}", "format", FORMAT, "version",
                          f->n_drives ? VERSION : 1, "name", f->name, "device", f->device, "cuda",
                          f->cuda, "threads", f->threads, grain.name, f->grain_tokens);
    int r;

    for (size_t i = 0; i < COUNT(sizes); i++)
        tr_json_add(
            &o, sizes[i].name,
            json_integer((json_int_t) * (const uint64_t *)((const char *)f + sizes[i].offset)));
    add_reals(&o, f, reals, COUNT(reals));
    add_reals(&o, f, later, COUNT(later));
    if (f->n_drives)
        tr_json_add(&o, "drives", drives_json(f));
    tr_json_add(&o, "costs", costs_json(f));
    r = o ? tr_json_write(path, o) : tr_error(-ENOMEM, "%s: out of memory", path);
    json_decref(o);
    return r;
}

/* ---- reading ---- */

static int read_number(const json_t *o, const char *where, const struct field *f, double *out)
{
    const json_t *v = json_object_get(o, f->name);

    if (!json_is_number(v))
        return tr_error(-EINVAL, "%s: %s: %s", where, f->name, v ? "no number" : "is missing");
    *out = json_number_value(v);
    if (!(*out >= f->least && *out <= f->most))
        return tr_error(-EINVAL, "%s: %s: %g is not between %g and %g", where, f->name, *out,
                        f->least, f->most);
    return 0;
}

static int read_text(const json_t *o, const char *where, const char *key, char *out, size_t room)
{
    const char *text = json_string_value(json_object_get(o, key));

    if (!text || !*text || strlen(text) >= room ||
        json_string_length(json_object_get(o, key)) != strlen(text))
        return tr_error(-EINVAL, "%s: %s: is not a text of at most %zu characters", where, key,
                        room - 1);
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return tr_error(-EINVAL, "%s: %s: has a control character", where, key);
    strcpy(out, text);
    return 0;
}

static int read_cost(const json_t *costs, const char *where, const char *key, double c[TR_TERMS])
{
    const json_t *a = json_object_get(costs, key);

    if (json_array_size(a) != TR_TERMS)
        return tr_error(-EINVAL, "%s: costs: %s: is not a list of %d numbers", where, key,
                        TR_TERMS);
    for (int t = 0; t < TR_TERMS; t++) {
        const json_t *v = json_array_get(a, (size_t)t);

        c[t] = json_is_number(v) ? json_number_value(v) : -1;
        if (!(c[t] >= 0 && c[t] <= 10))
            return tr_error(-EINVAL, "%s: costs: %s: number %d is not between 0 and 10 seconds",
                            where, key, t + 1);
    }
    return 0;
}

/* State in fewer bits costs what its bytes do in a file that is older than its rows. */
static int read_costs(const json_t *o, const char *where, struct tr_figures *out)
{
    const json_t *costs = json_object_get(o, "costs");
    size_t older = 0;
    int r = 0;

    for (int row = 0; row < TR_COST_ROWS && r == 0; row++)
        for (int w = 0; w < TR_WIDTHS && r == 0; w++) {
            char key[48];

            snprintf(key, sizeof(key), "%s %s", tr_cost_row_name((enum tr_cost_row)row),
                     width_name(w));
            if (row >= TR_COST_ADAMW_BF16 && !json_object_get(costs, key)) {
                memcpy(out->cost[row][w], out->cost[tr_cost_row_plain((enum tr_cost_row)row)][w],
                       sizeof(out->cost[row][w]));
                older++;
            } else {
                r = read_cost(costs, where, key, out->cost[row][w]);
            }
        }
    if (r == 0 && json_object_size(costs) + older != (size_t)TR_COST_ROWS * TR_WIDTHS)
        r = tr_error(-EINVAL, "%s: costs: has an entry of no meaning", where);
    return r;
}

static int read_drive(const json_t *o, const char *where, struct tr_figures_drive *d)
{
    char at[TR_FIGURES_FOLDER + 64];
    int r;

    snprintf(at, sizeof(at), "%s: drives", where);
    r = read_text(o, at, "folder", d->folder, sizeof(d->folder));
    for (size_t k = 0; k < COUNT(ways) && r == 0; k++)
        r = read_number(o, at, &ways[k], (double *)((char *)&d->rates + ways[k].offset));
    if (r == 0 && json_object_size(o) != 1 + COUNT(ways))
        r = tr_error(-EINVAL, "%s: has a key of no meaning", at);
    return r;
}

static int read_drives(const json_t *o, const char *where, struct tr_figures *out)
{
    const json_t *list = json_object_get(o, "drives");
    size_t n = json_array_size(list);
    int r = 0;

    if (n < 1 || n > TR_STORE_FOLDERS)
        return tr_error(-EINVAL, "%s: drives: is not a list of 1 to %u drives", where,
                        TR_STORE_FOLDERS);
    out->n_drives = (uint32_t)n;
    for (size_t i = 0; i < n && r == 0; i++)
        r = read_drive(json_array_get(list, i), where, &out->drive[i]);
    return r;
}

static int read_head(const json_t *o, const char *where, struct tr_figures *out)
{
    static const struct field threads = {"threads", 0, 0, TR_MOST_THREADS};
    const char *format = json_string_value(json_object_get(o, "format"));
    const json_t *cuda = json_object_get(o, "cuda"), *version = json_object_get(o, "version");
    double n;
    int r;

    if (!format || strcmp(format, FORMAT))
        return tr_error(-EINVAL, "%s: is not a file of figures of a machine", where);
    if (json_integer_value(version) != VERSION && json_integer_value(version) != 1)
        return tr_error(-EINVAL, "%s: is of another version; run `tailrace bench` again", where);
    if (!json_is_boolean(cuda))
        return tr_error(-EINVAL, "%s: cuda: is neither true nor false", where);
    out->cuda = json_is_true(cuda);
    if ((r = read_text(o, where, "name", out->name, sizeof(out->name))) < 0 ||
        (r = read_text(o, where, "device", out->device, sizeof(out->device))) < 0 ||
        (r = read_number(o, where, &threads, &n)) < 0)
        return r;
    out->threads = (int)n;
    return 0;
}

/* What older files lack; adds to keys those that are there. */
static int read_later(const json_t *o, const char *where, struct tr_figures *out, size_t *keys)
{
    double tokens = out->cuda ? TR_GRAIN_CUDA : TR_GRAIN_CPU;
    int r = 0;

    out->update_bf16 = out->update_8bit = out->update;
    for (size_t i = 0; i < COUNT(later) && r == 0; i++)
        if (json_object_get(o, later[i].name)) {
            r = read_number(o, where, &later[i], (double *)((char *)out + later[i].offset));
            (*keys)++;
        }
    if (r == 0 && json_object_get(o, grain.name)) {
        r = read_number(o, where, &grain, &tokens);
        (*keys)++;
    }
    out->grain_tokens = (int)tokens;
    return r;
}

static int read_all(const json_t *o, const char *where, struct tr_figures *out)
{
    size_t keys = OTHER_KEYS + COUNT(sizes) + COUNT(reals);
    int r = read_head(o, where, out);
    double x;

    for (size_t i = 0; i < COUNT(sizes) && r == 0; i++)
        if ((r = read_number(o, where, &sizes[i], &x)) == 0)
            *(uint64_t *)((char *)out + sizes[i].offset) = (uint64_t)x;
    for (size_t i = 0; i < COUNT(reals) && r == 0; i++)
        r = read_number(o, where, &reals[i], (double *)((char *)out + reals[i].offset));
    if (r == 0)
        r = read_later(o, where, out, &keys);
    if (r == 0)
        r = read_costs(o, where, out);
    if (r == 0 && json_integer_value(json_object_get(o, "version")) == VERSION) {
        r = read_drives(o, where, out);
        keys++;
    }
    if (r == 0 && json_object_size(o) != keys)
        r = tr_error(-EINVAL, "%s: has a key of no meaning", where);
    return r;
}

int tr_figures_parse(const char *text, size_t bytes, const char *where, struct tr_figures *out)
{
    json_t *o = NULL;
    int r = tr_json_parse(text, bytes, where, &o);

    memset(out, 0, sizeof(*out));
    if (r == 0)
        r = read_all(o, where, out);
    json_decref(o);
    return r;
}

int tr_figures_read(const char *path, struct tr_figures *out)
{
    size_t bytes;
    char *text;
    int r = tr_file_read(path, MOST_BYTES, &text, &bytes);

    if (r < 0)
        return r;
    r = tr_figures_parse(text, bytes, path, out);
    tr_free(TR_MEM_TEXT, text);
    return r;
}

/* ---- where ---- */

static char *join(char *folder, const char *name, int make)
{
    char *path = folder ? tr_path(folder, name) : NULL;

    if (path && make && tr_make_folder(path) < 0) {
        tr_free(TR_MEM_MISC, path);
        path = NULL;
    }
    tr_free(TR_MEM_MISC, folder);
    return path;
}

char *tr_figures_path(int make)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *at;

    if (cache && *cache == '/') {
        at = tr_strdup(TR_MEM_MISC, cache);
        if (at && make && tr_make_folder(at) < 0) {
            tr_free(TR_MEM_MISC, at);
            return NULL;
        }
    } else if (home && *home == '/') {
        at = join(tr_strdup(TR_MEM_MISC, home), ".cache", make);
    } else {
        tr_error(-ENOENT, "neither XDG_CACHE_HOME nor HOME names a folder; use --out");
        return NULL;
    }
    return join(join(at, "tailrace", make), "machine.json", 0);
}
