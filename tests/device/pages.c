/* SPDX-License-Identifier: Apache-2.0
 *
 * Bulk host memory: of exactly the size asked for, huge and locked where the system allows it, and
 * there all the same where it does not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/device.h"
#include "src/base/pages.h"

#define MIB (1u << 20)

/* Reserved huge pages as systems may have them that this one is not. */
static enum { AS_HERE, REFUSED_AT_TOUCH, UNKNOWN_SIZE } system_has;

void *__real_mmap64(void *p, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *p, size_t bytes, int prot, int flags, int fd, off_t offset);
int __real_madvise(void *p, size_t bytes, int advice);
int __wrap_madvise(void *p, size_t bytes, int advice);

void *__wrap_mmap64(void *p, size_t bytes, int prot, int flags, int fd, off_t offset)
{
    if (flags & MAP_HUGETLB && system_has == UNKNOWN_SIZE) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    if (flags & MAP_HUGETLB && system_has == REFUSED_AT_TOUCH) {
        assert_int_equal(flags >> MAP_HUGE_SHIFT, 21); /* whatever the default is */
        prot = PROT_NONE;
        flags = flags & ~MAP_HUGETLB & ((1 << MAP_HUGE_SHIFT) - 1);
    }
    return __real_mmap64(p, bytes, prot, flags, fd, offset);
}

int __wrap_madvise(void *p, size_t bytes, int advice)
{
    if (advice != MADV_POPULATE_WRITE || system_has == AS_HERE)
        return __real_madvise(p, bytes, advice);
    errno = EFAULT;
    return -1;
}

/* Without stdio, which maps memory of its own. */
static uint64_t mapped_pages(void)
{
    char text[128] = "";
    int fd = open("/proc/self/statm", O_RDONLY);

    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    return strtoull(text, NULL, 10);
}

/* 1 where the mapping that holds this address has the flag in /proc/self/smaps: "lo" locked, "hg"
 * huge pages advised, "ht" reserved huge pages. */
static int has_flag(const void *p, const char *flag)
{
    unsigned long long from, to;
    char line[512];
    int inside = 0, found = 0;
    FILE *f = fopen("/proc/self/smaps", "r");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
            inside = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (inside && !strncmp(line, "VmFlags:", 8))
            found = strstr(line + 8, flag) != NULL;
    }
    fclose(f);
    return found;
}

/* Not a page more is mapped than asked for, and freeing gives all of it back. */
static void exact_sizes(void **state)
{
    static const size_t sizes[] = {1,           4096,    5000,           2 * MIB,
                                   2 * MIB + 1, 3 * MIB, 5 * MIB + 8192, 65 * MIB - 4096};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t counted = tr_mem_now(TR_MEM_IO), before = mapped_pages();
        char *p = tr_pages_alloc(TR_MEM_IO, sizes[i], TR_PAGES_LOCKED);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 4096, 0);
        assert_int_equal(mapped_pages() - before, (sizes[i] + 4095) / 4096);
        assert_int_equal(tr_mem_now(TR_MEM_IO) - counted, sizes[i]);
        for (size_t at = 0; at < sizes[i]; at += 4096)
            assert_int_equal(p[at], 0);
        memset(p, 1, sizes[i]);
        tr_free_pages(TR_MEM_IO, p, sizes[i]);
        assert_int_equal(mapped_pages(), before);
        assert_int_equal(tr_mem_now(TR_MEM_IO), counted);
    }
}

/* In a process of its own, without privileges and with this limit of locked memory. */
static int limited(rlim_t bytes, int (*check)(void))
{
    struct rlimit limit = {bytes, bytes};
    pid_t child = fork();
    int status;

    if (child == 0) {
        if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || (getuid() == 0 && setuid(65534) < 0))
            _exit(77);
        _exit(check());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int refused_lock(void)
{
    char *p, text[512];

    tr_pages_place(0, NULL);
    p = tr_pages_alloc(TR_MEM_IO, 4 * MIB, TR_PAGES_LOCKED);
    if (!p)
        return 1;
    memset(p, 1, 4 * MIB);
    tr_pages_remark(text, sizeof(text));
    if (!strstr(text, "not locked") || !strstr(text, "0 KiB"))
        return 2;
    return has_flag(p, " lo") ? 3 : 0;
}

static int unasked_lock(void)
{
    char *p, text[512];

    tr_pages_place(0, NULL);
    p = tr_pages_alloc(TR_MEM_IO, 4 * MIB, 0);
    tr_pages_remark(text, sizeof(text));
    return !p ? 1 : strstr(text, "not locked") ? 2 : has_flag(p, " lo") ? 3 : 0;
}

static int allowed_lock(void)
{
    char *p, text[512];

    tr_pages_place(0, NULL);
    p = tr_pages_alloc(TR_MEM_IO, 4 * MIB, TR_PAGES_LOCKED);
    tr_pages_remark(text, sizeof(text));
    if (!p || strstr(text, "not locked") || !has_flag(p, " lo"))
        return 1;
    /* A second one is beyond the limit: it is there, and the first stays locked. */
    if (!tr_pages_alloc(TR_MEM_IO, 4 * MIB, TR_PAGES_LOCKED))
        return 2;
    tr_pages_remark(text, sizeof(text));
    return strstr(text, "not locked") && has_flag(p, " lo") ? 0 : 3;
}

static void limits(void **state)
{
    char *p = tr_pages_alloc(TR_MEM_IO, 4 * MIB, 0);
    int reserved = p && has_flag(p, " ht");

    (void)state;
    assert_non_null(p);
    tr_free_pages(TR_MEM_IO, p, 4 * MIB);
    if (reserved) {
        print_message("there are reserved huge pages, which are never swapped: no limit to see\n");
        skip();
    }
    assert_int_equal(limited(0, refused_lock), 0);
    assert_int_equal(limited(0, unasked_lock), 0);
    assert_int_equal(limited(6 * MIB, allowed_lock), 0);
}

/* Locking touches nothing: a large arena opens at once. */
static void on_fault(void **state)
{
    char *p = tr_pages_alloc(TR_MEM_IO, 256 * MIB, TR_PAGES_LOCKED);
    unsigned char there[64] = {0};
    int resident = 0;

    (void)state;
    assert_non_null(p);
    assert_int_equal(mincore(p + 128 * MIB, sizeof(there) * 4096, there), 0);
    for (size_t i = 0; i < sizeof(there); i++)
        resident += there[i] & 1;
    assert_int_equal(resident, has_flag(p, " ht") ? sizeof(there) : 0); /* reserved ones are */
    tr_free_pages(TR_MEM_IO, p, 256 * MIB);
}

static int thp_is_off(void)
{
    char text[128] = "[never]";
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");

    if (f && !fgets(text, sizeof(text), f))
        text[0] = 0;
    if (f)
        fclose(f);
    return strstr(text, "[never]") != NULL;
}

/* Huge where there are huge pages; where there are none that is said. */
static void huge(void **state)
{
    char *p, text[512];

    (void)state;
    tr_pages_place(0, NULL);
    p = tr_pages_alloc(TR_MEM_IO, 8 * MIB + 4096, TR_PAGES_LOCKED);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % (2 * MIB), 0);
    tr_pages_remark(text, sizeof(text));
    assert_int_equal(strstr(text, "huge") != NULL, thp_is_off() && !has_flag(p, " ht"));
    if (!thp_is_off())
        assert_true(has_flag(p, " hg") || has_flag(p, " ht"));
    tr_free_pages(TR_MEM_IO, p, 8 * MIB + 4096);
}

/* A control group may refuse at the first touch what has been reserved, and a kernel may not know
 * the size: ordinary pages then, and not a byte more of them. */
static void refused_reserved(void **state)
{
    (void)state;
    for (system_has = REFUSED_AT_TOUCH; system_has <= UNKNOWN_SIZE; system_has++) {
        uint64_t before = mapped_pages();
        char *p = tr_pages_alloc(TR_MEM_IO, 8 * MIB + 4096, 0);

        assert_non_null(p);
        assert_int_equal(mapped_pages() - before, 2049);
        assert_false(has_flag(p, " ht"));
        memset(p, 1, 8 * MIB + 4096);
        if (!thp_is_off())
            assert_true(has_flag(p, " hg"));
        tr_free_pages(TR_MEM_IO, p, 8 * MIB + 4096);
        assert_int_equal(mapped_pages(), before);
    }
    system_has = AS_HERE;
}

/* Its first byte at the beginning of a huge page, or another one: the mapping is no larger. */
static void aligned(void **state)
{
    static const size_t sizes[] = {2 * MIB, 2 * MIB + 4096, 57 * MIB + 3 * 4096};
    static const size_t places[] = {0, 4096, 5 * 4096, 2 * MIB - 4096, 3 * MIB};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t k = 0; k < sizeof(places) / sizeof(places[0]); k++) {
            uint64_t before = mapped_pages();
            char *p = tr_alloc_pages_aligned(TR_MEM_IO, sizes[i], places[k]);

            assert_non_null(p);
            assert_int_equal(((uintptr_t)p + places[k]) % (2 * MIB), 0);
            assert_int_equal(mapped_pages() - before, sizes[i] / 4096);
            p[0] = p[sizes[i] - 1] = 1;
            tr_free_pages(TR_MEM_IO, p, sizes[i]);
            assert_int_equal(mapped_pages(), before);
        }
}

/* Slots begin where the device's memory does: a huge page, so that few segments make a request. */
static void cpu_device(void **state)
{
    struct tr_device_params p = {.memory_bytes = 64 * MIB, .threads = 2};
    struct tr_device *d;

    (void)state;
    assert_int_equal(tr_device_open_cpu(&d, &p), 0);
    assert_int_equal((uintptr_t)d->ops->arena(d) % (2 * MIB), 0);
    d->ops->close(d);
}

/* ---- beside another thread ---- */

#define MANY 1000

static _Atomic int ends;
static int replaced; /* mappings of the other thread that were no longer its own */

/* Fills whatever gap of a huge page there is, for as long as it can, and then looks whether all of
 * it is still there. */
static void *map_beside(void *arg)
{
    static char *kept[MANY];

    (void)arg;
    while (!ends) {
        for (int i = 0; i < MANY; i++) {
            kept[i] = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (kept[i] != MAP_FAILED)
                *(volatile char *)kept[i] = 7;
        }
        for (int i = 0; i < MANY; i++)
            if (kept[i] != MAP_FAILED) {
                replaced += *(volatile char *)kept[i] != 7;
                munmap(kept[i], 2 * MIB);
            }
    }
    return NULL;
}

/* Where no huge pages are reserved a mapping of them fails, and takes the addresses away: what
 * another thread maps there before they are taken back is its own. */
static void beside_a_thread(void **state)
{
    pthread_t thread;

    (void)state;
    ends = replaced = 0;
    assert_int_equal(pthread_create(&thread, NULL, map_beside, NULL), 0);
    for (int i = 0; i < 20000; i++) {
        void *p = tr_pages_alloc(TR_MEM_IO, 4 * MIB, 0);

        assert_non_null(p);
        tr_free_pages(TR_MEM_IO, p, 4 * MIB);
    }
    ends = 1;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(replaced, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_sizes), cmocka_unit_test(beside_a_thread),
        cmocka_unit_test(limits),      cmocka_unit_test(on_fault),
        cmocka_unit_test(huge),        cmocka_unit_test(refused_reserved),
        cmocka_unit_test(aligned),     cmocka_unit_test(cpu_device),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
