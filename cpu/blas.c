/* SPDX-License-Identifier: Apache-2.0
 *
 * OpenBLAS is opened by name at run time, because its kernel type is chosen once, while it loads,
 * from OPENBLAS_CORETYPE: 0.3.21 does not know newer CPUs and falls back to kernels several times
 * slower. If some other part of the process has loaded it before, it is too late: it is used as it
 * is, and the device's remark says so.
 *
 * The library is told to use one thread (by variable and by call), so each call runs on the thread
 * that makes it; concurrent calls get separate packing buffers from its locked allocator (mapped
 * large, touched for about 1 MiB a thread with the tiles of the matmuls; no part of the arena).
 */
#include "cpu/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/flags.h"
#include "src/base/err.h"
#include "src/base/sysmem.h"

#define LIBRARY "libopenblas.so.0"
#define BUFFER  ((size_t)128 << 20) /* what it maps for a thread that multiplies */

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void sgemm_fn(int order, int transa, int transb, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);

struct tr_blas {
    sgemm_fn *sgemm;
    char bits[64], remark[192];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tr_blas the_blas;
static int is_open;

static void *symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

/* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..." to "OpenBLAS 0.3.21 <core>". */
static void describe(struct tr_blas *b, void *library)
{
    char *(*get_config)(void) = (char *(*)(void))symbol(library, "openblas_get_config");
    char *(*get_core)(void) = (char *(*)(void))symbol(library, "openblas_get_corename");
    const char *config = get_config ? get_config() : "OpenBLAS unknown";
    const char *core = get_core ? get_core() : "unknown";
    size_t n = strcspn(config, " ");

    if (config[n])
        n += 1 + strcspn(config + n + 1, " ");
    snprintf(b->bits, sizeof(b->bits), "%.*s %s", (int)(n < 30 ? n : 30), config, core);
}

/* Do kernels of this name use all that the CPU has? Newer ones than we wish for do as well. */
static int is_fast(const char *core)
{
    static const char *const wide[] = {"SkylakeX", "Cooperlake", "SapphireRapids", NULL};
    static const char *const others[] = {"Haswell", "Zen", NULL};
    enum tr_cpu_tier best = tr_cpu_tier_best();
    const char *const *fast = best == TR_TIER_AVX512 ? wide : others;

    while (*fast && strcasecmp(*fast, core))
        fast++;
    return *fast || best < TR_TIER_AVX2;
}

static void remark(struct tr_blas *b, const char *wanted, const char *user, int was_loaded)
{
    const char *core = strrchr(b->bits, ' ') + 1;

    if (is_fast(core))
        return;
    if (was_loaded)
        snprintf(b->remark, sizeof(b->remark),
                 "OpenBLAS had been loaded before, with kernels for %s: those for %s are several "
                 "times faster; set OPENBLAS_CORETYPE to that before starting",
                 core, wanted);
    else if (user)
        snprintf(b->remark, sizeof(b->remark),
                 "OPENBLAS_CORETYPE has OpenBLAS run kernels for %s: those for %s are faster here",
                 core, wanted);
    else
        snprintf(b->remark, sizeof(b->remark),
                 "OpenBLAS runs kernels for %s: it has none for %s, which would be faster", core,
                 wanted);
}

/* Loads the library under the two variables and puts the environment back. */
static void *load(const char *core)
{
    const char *old = getenv("OPENBLAS_NUM_THREADS");
    char *kept = old ? strdup(old) : NULL;
    void *library;

    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    if (core)
        setenv("OPENBLAS_CORETYPE", core, 1);
    library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (core)
        unsetenv("OPENBLAS_CORETYPE");
    if (kept)
        setenv("OPENBLAS_NUM_THREADS", kept, 1);
    else
        unsetenv("OPENBLAS_NUM_THREADS");
    free(kept);
    return library;
}

static int open_locked(struct tr_blas *b)
{
    const char *user = getenv("OPENBLAS_CORETYPE"), *wanted = tr_cpu_blas_coretype();
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_NOLOAD);
    int was_loaded = library != NULL;
    void (*set_threads)(int);

    if (user && !*user)
        user = NULL;
    if (!library)
        library = load(user ? NULL : wanted);
    if (!library)
        return tr_error(-ENOENT,
                        "OpenBLAS is missing: install the Debian package libopenblas0 (%s)",
                        dlerror());
    b->sgemm = (sgemm_fn *)symbol(library, "cblas_sgemm");
    set_threads = (void (*)(int))symbol(library, "openblas_set_num_threads");
    if (!b->sgemm || !set_threads) {
        dlclose(library);
        return tr_error(-ENOSYS, LIBRARY " has no cblas_sgemm or openblas_set_num_threads: "
                                         "install the Debian package libopenblas0");
    }
    set_threads(1);
    describe(b, library);
    remark(b, wanted, user, was_loaded);
    return 0;
}

int tr_blas_open(const struct tr_blas **out)
{
    int error = 0;

    pthread_mutex_lock(&lock);
    if (!is_open)
        error = open_locked(&the_blas);
    is_open = !error;
    pthread_mutex_unlock(&lock);
    *out = error ? NULL : &the_blas;
    return error;
}

int tr_blas_check_room(int threads)
{
    int n = tr_mappings_left(BUFFER, threads);

    return n == threads
               ? 0
               : tr_error(-ENOMEM,
                          "OpenBLAS maps %zu MiB for each of %d threads, and there is room for %d "
                          "of them: lower --device-memory or --threads, or raise `ulimit -v' or -d",
                          BUFFER >> 20, threads, n);
}

const char *tr_blas_bits(const struct tr_blas *blas)
{
    return blas->bits;
}

const char *tr_blas_remark(const struct tr_blas *blas)
{
    return blas->remark;
}

void tr_blas_gemm(const struct tr_blas *blas, const struct tr_gemm *g)
{
    blas->sgemm(ROW_MAJOR, g->a_trans ? TRANS : NO_TRANS, g->b_trans ? TRANS : NO_TRANS,
                (int)g->rows, (int)g->cols, (int)g->k, g->scaled ? g->alpha : 1.0f, g->a,
                (int)g->lda, g->b, (int)g->ldb, g->beta, g->c, (int)g->ldc);
}
