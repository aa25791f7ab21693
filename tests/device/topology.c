/* SPDX-License-Identifier: Apache-2.0
 *
 * Which NUMA node is near to a GPU or a drive, on machines that are only described: two nodes, with
 * a GPU and an NVMe drive on the second, or GPUs on both. And the place of memory on this one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "src/base/pages.h"
#include "src/base/topology.h"

#define SETS(set)                                                                                  \
    "cpuset=\"" set "\" complete_cpuset=\"" set "\" nodeset=\"" set "\" complete_nodeset=\"" set   \
    "\" "

#define HEAD                                                                                       \
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"                                                 \
    "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology version=\"2.0\">\n"                      \
    "<object type=\"Machine\" os_index=\"0\" " SETS(                                               \
        "0x3") "allowed_cpuset=\"0x3\" allowed_nodeset=\"0x3\" gp_index=\"1\">\n"
#define TAIL "</object>\n</topology>\n"

/* Package i with a node, a core of one thread, and what hangs below it. */
#define PACKAGE(i, set, devices)                                                                   \
    "<object type=\"Package\" os_index=\"" i                                                       \
    "\" " SETS(set) "gp_index=\"1" i "\">\n"                                                       \
                    "<object type=\"NUMANode\" os_index=\"" i                                      \
                    "\" " SETS(set) "gp_index=\"2" i "\" local_memory=\"1073741824\"/>\n"          \
                                    "<object type=\"Core\" os_index=\"" i                          \
                                    "\" " SETS(set) "gp_index=\"3" i "\">\n"                       \
                                                    "<object type=\"PU\" os_index=\"" i            \
                                                    "\" " SETS(set) "gp_index=\"4" i               \
                                                                    "\"/>\n</object>\n" devices    \
                                                                    "</object>\n"

#define BRIDGE(bus, inside)                                                                        \
    "<object type=\"Bridge\" gp_index=\"5" bus "\" bridge_type=\"0-1\" depth=\"0\" "               \
    "bridge_pci=\"0000:[" bus "-" bus "]\">\n" inside "</object>\n"
#define GPU(bus)                                                                                   \
    "<object type=\"PCIDev\" gp_index=\"6" bus "\" pci_busid=\"0000:" bus ":00.0\" "               \
    "pci_type=\"0302 [10de:2204] [10de:1467] a1\" pci_link_speed=\"0.000000\"/>\n"
#define DRIVE(bus, name)                                                                           \
    "<object type=\"PCIDev\" gp_index=\"7" bus "\" pci_busid=\"0000:" bus ":01.0\" "               \
    "pci_type=\"0108 [144d:a80a] [144d:a801] 00\" pci_link_speed=\"0.000000\">\n"                  \
    "<object type=\"OSDev\" gp_index=\"8" bus "\" name=\"" name                                    \
    "\" osdev_type=\"0\"/>\n</object>\n"

static const char plain[] = HEAD PACKAGE("0", "0x1", "") PACKAGE("1", "0x2", "") TAIL;
static const char second[] = HEAD PACKAGE("0", "0x1", "")
    PACKAGE("1", "0x2", BRIDGE("41", GPU("41") DRIVE("41", "nvme0n1"))) TAIL;
static const char both[] = HEAD PACKAGE("0", "0x1", BRIDGE("01", GPU("01") DRIVE("01", "nvme1n1")))
    PACKAGE("1", "0x2", BRIDGE("41", GPU("41"))) TAIL;

static struct tr_topology *open_topology(const char *description)
{
    struct tr_topology *t;
    int r = tr_topology_open(&t, description);

    if (r == -ENOSYS) {
        print_message("skipped: built without hwloc\n");
        skip();
    }
    if (r < 0)
        fail_msg("%s", tr_error_message());
    return t;
}

static void expect(const char *description, int nodes, int gpu, const char *disk, int disk_node)
{
    struct tr_topology *t = open_topology(description);

    assert_int_equal(tr_topology_nodes(t), nodes);
    assert_int_equal(tr_topology_node_of_gpus(t), gpu);
    assert_int_equal(tr_topology_node_of_disk(t, disk), disk_node);
    tr_topology_close(t);
}

static void devices(void **state)
{
    (void)state;
    expect("numa:2 core:2 pu:1", 2, -1, "nvme0n1", -1);
    expect(plain, 2, -1, "nvme0n1", -1);
    expect(second, 2, 1, "nvme0n1", 1);
    expect(second, 2, 1, "nvme9n1", -1);
    expect(both, 2, -1, "nvme1n1", 0); /* GPUs on two nodes: none is near to all */
}

static void expect_place(const char *description, int gpu, const char *disk, int node)
{
    struct tr_topology *t = open_topology(description);

    assert_int_equal(tr_topology_choose(t, gpu, disk), node);
    tr_topology_close(t);
}

/* The GPU decides, then the cores, then the drive. The cores of a machine that is only described
 * may be all of them. */
static void places(void **state)
{
    (void)state;
    expect_place(second, 1, "", 1);
    expect_place(second, 0, "", -1);
    expect_place(second, 0, "nvme0n1", 1);
    expect_place(both, 1, "nvme1n1", 0);
    expect_place(both, 1, "", -1);
    expect_place(plain, 1, "nvme0n1", -1);
    expect_place("numa:1 core:2 pu:1", 0, "", 0);
}

/* A description is of another machine: no memory of this one is bound by it. */
static void no_binding(void **state)
{
    struct tr_topology *t = open_topology("numa:2 core:1 pu:1");
    char *p = tr_alloc_pages(TR_MEM_IO, 8192);

    (void)state;
    assert_int_equal(tr_topology_bind(t, p, 8192, 1), -ENOSYS);
    assert_int_equal(tr_topology_bind(t, p, 8192, 2), -ENOSYS);
    tr_free_pages(TR_MEM_IO, p, 8192);
    tr_topology_close(t);
}

static void nonsense(void **state)
{
    struct tr_topology *t = open_topology("numa:1 core:1 pu:1");

    (void)state;
    tr_topology_close(t);
    assert_int_equal(tr_topology_open(&t, "no such thing"), -EINVAL);
    assert_null(t);
}

/* This machine: its nodes take the memory; a place that cannot be known is no error. */
static void this_machine(void **state)
{
    struct tr_topology *t = open_topology(NULL);
    char *p = tr_alloc_pages(TR_MEM_IO, 8192), text[512];

    (void)state;
    for (int i = 0; i < tr_topology_nodes(t); i++) {
        int r = tr_topology_bind(t, p, 8192, i);

        assert_true(r == 0 || r == -EPERM || r == -ENOSYS); /* a container may refuse it */
    }
    p[0] = 1;
    tr_free_pages(TR_MEM_IO, p, 8192);
    tr_topology_close(t);
    for (int gpu = 0; gpu < 2; gpu++) {
        tr_pages_place(gpu, "/nowhere/at/all");
        tr_pages_place(gpu, NULL);
    }
    tr_pages_remark(text, sizeof(text));
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices),  cmocka_unit_test(places),       cmocka_unit_test(no_binding),
        cmocka_unit_test(nonsense), cmocka_unit_test(this_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
