/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds and opens the module of the cuda device. One program serves machines with and without a
 * GPU: it links neither CUDA nor the module, and every way in which they can be missing ends in one
 * message that says what is missing and that `--device cpu` exists.
 *
 * The module is looked for where TAILRACE_CUDA_MODULE says, else beside the file that holds this
 * code (library or program: installed, in an unpacked archive, or in its build folder), else in the
 * folder it is installed to. It stays loaded: the driver's threads outlive every device.
 */
#include "src/base/device_module.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build_config.h"
#include "src/base/err.h"
#include "src/base/pages.h"

#define MODULE_FILE "tailrace-cuda.so"

/* ---- what the module is given ---- */

static int host_error(int code, const char *message)
{
    return tr_error(code, "%s", message);
}

static void *host_alloc(size_t bytes)
{
    return tr_alloc(TR_MEM_MISC, bytes);
}

static void host_free(void *p)
{
    tr_free(TR_MEM_MISC, p);
}

static void *host_alloc_pages(size_t bytes)
{
    return tr_pages_alloc(TR_MEM_IO, bytes, 0); /* the driver locks them */
}

static void host_free_pages(void *p, size_t bytes)
{
    tr_free_pages(TR_MEM_IO, p, bytes);
}

static void host_count_pages(int64_t bytes)
{
    tr_mem_count(TR_MEM_IO, bytes);
}

static const struct tr_module_host host = {
    .error = host_error,
    .message = tr_error_message,
    .alloc = host_alloc,
    .free = host_free,
    .alloc_pages = host_alloc_pages,
    .free_pages = host_free_pages,
    .count_pages = host_count_pages,
};

/* ---- finding it ---- */

/* The file that holds this code. Of a program the linker knows its first argument alone, which
 * without a slash would be looked for in the working folder, where anybody's module may lie. */
static int find_self(char self[PATH_MAX])
{
    struct link_map *map = NULL;
    Dl_info info;

    if (!dladdr1(&host, &info, (void **)&map, RTLD_DL_LINKMAP) || !map)
        return 0;
    return realpath(*map->l_name ? map->l_name : "/proc/self/exe", self) != NULL;
}

/* 1 and the path of the module, 0 where there is none. */
static int find_module(char *path, size_t room)
{
    static const char *const beside[] = {
        "", "tailrace/", "../lib/tailrace/", "../kernels/", "../../kernels/", "../../../kernels/"};
    char self[PATH_MAX];

    if (find_self(self)) {
        *(strrchr(self, '/') + 1) = '\0';
        for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++)
            if (snprintf(path, room, "%s%s%s", self, beside[i], MODULE_FILE) < (int)room &&
                access(path, F_OK) == 0)
                return 1;
    }
    snprintf(path, room, "%s/%s", TR_MODULE_DIR, MODULE_FILE);
    return access(path, F_OK) == 0;
}

static int check_module(const struct tr_cuda_module *m, const char *path)
{
    if (m->abi != TR_CUDA_MODULE_ABI || m->op_bytes != sizeof(struct tr_op) ||
        m->ops_bytes != sizeof(struct tr_device_ops) ||
        m->info_bytes != sizeof(struct tr_device_info) ||
        m->params_bytes != sizeof(struct tr_device_params))
        return tr_error(-ELIBBAD, "%s belongs to another version of tailrace", path);
    return 0;
}

static int load_module(const struct tr_cuda_module **out)
{
    const char *named = getenv("TAILRACE_CUDA_MODULE");
    char path[PATH_MAX];
    tr_cuda_module_fn *get;
    void *handle;

    if (named && *named)
        snprintf(path, sizeof(path), "%s", named);
    else if (!find_module(path, sizeof(path)))
        return tr_error(-ENOENT, "this build has no CUDA module (%s)", MODULE_FILE);
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return tr_error(-ENOENT, "cannot open the CUDA module: %s", dlerror());
    *(void **)&get = dlsym(handle, TR_CUDA_MODULE_SYMBOL);
    if (!get)
        return tr_error(-ELIBBAD, "%s is not a CUDA module of tailrace", path);
    *out = get();
    return check_module(*out, path);
}

/* What no budget and no other option mends: the cpu device is left. */
static int add_way_out(int error)
{
    char message[1024];

    if (error != -ENOENT && error != -ELIBBAD && error != -ENODEV)
        return error;
    snprintf(message, sizeof(message), "%s", tr_error_message());
    return tr_error(error, "%s; --device cpu works without a GPU", message);
}

/* ---- the device ---- */

int tr_device_open_cuda(struct tr_device **out, const struct tr_device_params *p)
{
    const struct tr_cuda_module *m;
    int error = load_module(&m);

    if (!error)
        error = m->open(&host, out, p);
    return error ? add_way_out(error) : 0;
}

int tr_device_cuda_memory(int ordinal, uint64_t *free, uint64_t *total)
{
    const struct tr_cuda_module *m;
    int error = load_module(&m);

    if (!error)
        error = m->memory(&host, ordinal, free, total);
    return error ? add_way_out(error) : 0;
}

int tr_device_cuda_workspace(int ordinal, uint64_t *bytes)
{
    const struct tr_cuda_module *m;
    int error = load_module(&m);

    if (!error)
        error = m->workspace(&host, ordinal, bytes);
    return error ? add_way_out(error) : 0;
}
