/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "tests/parity/recorded.h"

/* Of the tree that was built, or of a copy of it on another machine. */
static const char *data_folder(void)
{
    const char *named = getenv("TR_PARITY_DATA");

    return named && *named ? named : PARITY_DATA;
}

char *recorded_path(char *buf, const char *fmt, ...)
{
    va_list args;
    int n = snprintf(buf, PATH_MAX, "%s/", data_folder());

    va_start(args, fmt);
    n += vsnprintf(buf + n, (size_t)(PATH_MAX - n), fmt, args);
    va_end(args);
    assert_true(n < PATH_MAX);
    return buf;
}

int recorded_exists(const char *path)
{
    return access(path, R_OK) == 0;
}

json_t *recorded_json(const char *path)
{
    json_t *value = NULL;

    if (tr_json_read(path, 1 << 20, &value) < 0)
        fail_msg("%s", tr_error_message());
    return value;
}

double recorded_number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

double recorded_at(const json_t *object, const char *key, size_t i)
{
    const json_t *value = json_array_get(json_object_get(object, key), i);

    if (!json_is_number(value))
        fail_msg("recorded %s has no number %zu", key, i);
    return json_number_value(value);
}

/* The tensor's bytes; a dtype that is not in the mask of allowed ones fails. */
static void *read_tensor(struct tr_safetensors *s, const char *name, unsigned dtypes,
                         const struct tr_st_tensor **found)
{
    const struct tr_st_tensor *t = tr_safetensors_find(s, name);
    void *data;

    if (!t || t->dtype < 0 || !(dtypes & 1u << t->dtype))
        fail_msg("there is no %s of a fitting dtype", name);
    data = malloc(t->bytes);
    assert_non_null(data);
    if (tr_safetensors_read(s, t, 0, data, t->bytes) < 0)
        fail_msg("%s", tr_error_message());
    *found = t;
    return data;
}

uint16_t *recorded_bits(struct tr_safetensors *s, const char *name, int64_t *n)
{
    const struct tr_st_tensor *t;
    uint16_t *bits = read_tensor(s, name, 1u << TR_BF16, &t);

    *n = (int64_t)(t->bytes / 2);
    return bits;
}

float *recorded_tensor(struct tr_safetensors *s, const char *name, int64_t *n)
{
    const struct tr_st_tensor *t;
    void *data = read_tensor(s, name, 1u << TR_F32 | 1u << TR_BF16, &t);
    float *wide;

    *n = (int64_t)(t->bytes / tr_dtype_size((enum tr_dtype)t->dtype));
    if (t->dtype == TR_F32)
        return data;
    wide = malloc((size_t)*n * sizeof(float));
    assert_non_null(wide);
    for (int64_t i = 0; i < *n; i++) {
        uint32_t bits = (uint32_t)((uint16_t *)data)[i] << 16;

        memcpy(&wide[i], &bits, sizeof(bits));
    }
    free(data);
    return wide;
}

void recorded_distances(struct tr_safetensors *got, struct tr_safetensors *want,
                        recorded_distance_fn *fn, void *arg)
{
    for (uint32_t t = 0; t < want->n_tensors; t++) {
        const char *name = want->tensors[t].name;
        int64_t n, m;
        float *b = recorded_tensor(want, name, &n), *a = recorded_tensor(got, name, &m);
        double difference = 0, norm = 0;

        assert_int_equal(n, m);
        for (int64_t i = 0; i < n; i++) {
            difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
            norm += (double)b[i] * b[i];
        }
        fn(arg, name, sqrt(difference) / sqrt(norm));
        free(a);
        free(b);
    }
}

char *recorded_temporary(char *buf)
{
    const char *base = getenv("TMPDIR");

    snprintf(buf, PATH_MAX, "%s/tailrace-parity-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(buf));
    return buf;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

int recorded_models(char names[RECORDED_MODELS][64], const char *with)
{
    DIR *folder = opendir(data_folder());
    char path[PATH_MAX];
    int n = 0;

    assert_non_null(folder);
    for (struct dirent *e = readdir(folder); e; e = readdir(folder)) {
        if (e->d_name[0] == '.' || !recorded_exists(recorded_path(path, "%s/%s", e->d_name, with)))
            continue;
        assert_true(n < RECORDED_MODELS && strlen(e->d_name) < sizeof(names[0]));
        strcpy(names[n++], e->d_name);
    }
    closedir(folder);
    qsort(names, (size_t)n, sizeof(names[0]), by_name);
    return n;
}

double recorded_worse(double worst, double x)
{
    return isnan(worst) || x <= worst ? worst : x;
}
