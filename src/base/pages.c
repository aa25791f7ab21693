/* SPDX-License-Identifier: Apache-2.0
 *
 * Reserved huge pages come in whole ones: of a mapping the whole multiples are taken from them, and
 * what is left over at the end is of ordinary pages, so that not a byte more is mapped than asked
 * for. Locking is on fault: of ordinary pages nothing is touched here, a large arena opens at once.
 */
#include "src/base/pages.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/topology.h"

#define PAGE      4096u
#define HUGE_PAGE (2u << 20)
#define RESERVED  (MAP_HUGETLB | 21 << MAP_HUGE_SHIFT) /* of 2 MiB, whatever size is the default */

enum refusal { REFUSED_LOCK = 1, REFUSED_HUGE = 2, REFUSED_NODE = 4, REFUSED_HWLOC = 8 };

static struct {
    pthread_mutex_t lock; /* of the topology, which is opened once */
    struct tr_topology *topology;
    _Atomic int node; /* -1: none in particular */
    _Atomic unsigned refused;
} place = {.lock = PTHREAD_MUTEX_INITIALIZER, .node = -1};

static void refuse(enum refusal r)
{
    atomic_fetch_or(&place.refused, (unsigned)r);
}

/* ---- huge pages ---- */

static int transparent_are_off(void)
{
    char text[128] = "";
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
    int off = fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 || strstr(text, "[never]");

    if (fd >= 0)
        close(fd);
    return off;
}

static void make_huge(void *p, size_t bytes)
{
    if (bytes < HUGE_PAGE)
        return;
    if (madvise(p, bytes, MADV_HUGEPAGE) < 0 || transparent_are_off())
        refuse(REFUSED_HUGE);
}

static char *map_at(char *p, size_t bytes, int flags)
{
    return mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

/* Addresses that a failed mapping has taken away. Another thread may have got them meanwhile: what
 * it has there is never replaced. A kernel without the flag takes them as a wish. */
static int map_hole(char *p, size_t bytes)
{
    char *got = map_at(p, bytes, MAP_FIXED_NOREPLACE | MAP_NORESERVE);

    if (got != MAP_FAILED && got != p)
        munmap(got, bytes);
    return got == p;
}

/* A mapping of `bytes`, of which *huge at the beginning are in reserved huge pages: all whole ones,
 * or none. NULL: out of memory. A kernel that does not know such pages says so (EINVAL) before it
 * takes the addresses away. */
static char *map_reserved(size_t bytes, size_t *huge)
{
    char *p = tr_map_aligned(bytes, 0);
    size_t whole = bytes / HUGE_PAGE * HUGE_PAGE;

    *huge = 0;
    if (p && map_at(p, whole, MAP_FIXED | RESERVED) != MAP_FAILED)
        *huge = whole;
    if (!p || *huge || errno == EINVAL || map_hole(p, whole))
        return p;
    if (bytes > whole)
        munmap(p + whole, bytes - whole);
    return tr_map_aligned(bytes, 0);
}

/* ---- where, and whether it stays ---- */

static void bind_near(void *p, size_t bytes)
{
    int node = atomic_load(&place.node);

    if (node < 0 || !bytes)
        return;
    pthread_mutex_lock(&place.lock);
    if (place.topology && tr_topology_bind(place.topology, p, bytes, node) < 0)
        refuse(REFUSED_NODE);
    pthread_mutex_unlock(&place.lock);
}

static void lock(void *p, size_t bytes, unsigned wish)
{
    if (wish & TR_PAGES_LOCKED && bytes && mlock2(p, bytes, MLOCK_ONFAULT) < 0)
        refuse(REFUSED_LOCK);
}

void tr_pages_improve(void *p, size_t bytes, unsigned wish)
{
    make_huge(p, bytes);
    bind_near(p, bytes);
    lock(p, bytes, wish);
}

/* A reservation is no promise: a control group or a cpuset may refuse the pages themselves, and
 * then the first touch is the end of the process (SIGBUS). So they are touched here, or ordinary
 * ones take their place. NULL: out of memory. */
static char *map_bulk(size_t bytes)
{
    size_t huge;
    char *p = map_reserved(bytes, &huge);

    if (!p)
        return NULL;
    bind_near(p, bytes);
    if (huge && madvise(p, huge, MADV_POPULATE_WRITE) == 0)
        return p;
    if (huge && map_at(p, huge, MAP_FIXED) == MAP_FAILED) {
        munmap(p, bytes);
        return NULL;
    }
    if (huge)
        bind_near(p, huge);
    make_huge(p, bytes);
    return p;
}

void *tr_pages_alloc(enum tr_mem_tag tag, size_t bytes, unsigned wish)
{
    size_t whole = tr_round_up(bytes ? bytes : 1, PAGE);
    char *p;

    if (whole < HUGE_PAGE) {
        p = tr_alloc_pages(tag, bytes);
        if (p)
            tr_pages_improve(p, whole, wish);
        return p;
    }
    p = map_bulk(whole);
    if (!p) {
        tr_error(-ENOMEM, "out of memory: %zu bytes for %s", bytes, tr_mem_tag_name(tag));
        return NULL;
    }
    tr_mem_count(tag, (int64_t)bytes);
    lock(p, whole, wish);
    return p;
}

/* ---- the place ---- */

/* The block device that a folder is on, "" where it is on none: a partition counts as its disk. */
static void name_disk(const char *folder, char *name, size_t room)
{
    char path[PATH_MAX], *real, *base;
    struct stat st;

    *name = 0;
    snprintf(path, sizeof(path), "%s", folder);
    while (stat(path, &st) < 0 && strrchr(path, '/')) /* the nearest above that exists */
        *strrchr(path, '/') = 0;
    if (stat(*path ? path : "/", &st) < 0)
        return;
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
    real = realpath(path, NULL);
    if (real && tr_folder_has(real, "partition"))
        *strrchr(real, '/') = 0;
    base = real ? strrchr(real, '/') : NULL;
    if (base)
        snprintf(name, room, "%s", base + 1);
    free(real);
}

void tr_pages_place(int gpu, const char *folder)
{
    char disk[64] = "";

    atomic_store(&place.refused, 0);
    atomic_store(&place.node, -1);
    if (access("/sys/devices/system/node/node1", F_OK) < 0)
        return; /* one node: there is nothing to choose, nor to find out */
    pthread_mutex_lock(&place.lock);
    if (!place.topology && tr_topology_open(&place.topology, NULL) < 0)
        refuse(REFUSED_HWLOC);
    if (folder)
        name_disk(folder, disk, sizeof(disk));
    if (place.topology)
        atomic_store(&place.node, tr_topology_choose(place.topology, gpu, disk));
    pthread_mutex_unlock(&place.lock);
}

void tr_pages_remark(char *text, size_t room)
{
    unsigned refused = atomic_load(&place.refused);
    struct rlimit limit = {0};
    size_t n = 0;

    *text = 0;
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (refused & REFUSED_LOCK)
        n += (size_t)snprintf(text, room,
                              "not locked, it may be swapped out: the limit of locked memory is "
                              "%llu KiB (ulimit -l)",
                              (unsigned long long)limit.rlim_cur >> 10);
    if (refused & REFUSED_HUGE && n < room)
        n += (size_t)snprintf(text + n, room - n, "%sno huge pages (transparent_hugepage: never)",
                              n ? "; " : "");
    if (refused & REFUSED_NODE && n < room)
        n += (size_t)snprintf(text + n, room - n, "%snot bound to a NUMA node", n ? "; " : "");
    if (refused & REFUSED_HWLOC && n < room)
        snprintf(text + n, room - n, "%snot bound to a NUMA node: built without hwloc",
                 n ? "; " : "");
}
