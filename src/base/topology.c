/* SPDX-License-Identifier: Apache-2.0
 *
 * hwloc hangs PCI devices below the part of the machine that they are wired to; that part has a set
 * of NUMA nodes. A device below all of them is as far from one as from the other.
 */
#include "src/base/topology.h"

#include <hwloc.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

#define NVIDIA            0x10de
#define CLASS_VGA         0x0300
#define CLASS_3D          0x0302
#define LONGEST_SHORTHAND 256 /* a longer description is XML */

struct tr_topology {
    hwloc_topology_t hwloc;
};

static int describe(hwloc_topology_t t, const char *description)
{
    if (!description)
        return 0;
    return strlen(description) > LONGEST_SHORTHAND
               ? hwloc_topology_set_xmlbuffer(t, description, (int)strlen(description) + 1)
               : hwloc_topology_set_synthetic(t, description);
}

int tr_topology_open(struct tr_topology **out, const char *description)
{
    struct tr_topology *t = tr_alloc(TR_MEM_MISC, sizeof(*t));

    *out = NULL;
    if (!t)
        return -ENOMEM;
    if (hwloc_topology_init(&t->hwloc) < 0) {
        tr_free(TR_MEM_MISC, t);
        return tr_error(-ENOMEM, "out of memory for the topology of the machine");
    }
    if (describe(t->hwloc, description) < 0 ||
        hwloc_topology_set_io_types_filter(t->hwloc, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) < 0 ||
        hwloc_topology_load(t->hwloc) < 0) {
        tr_topology_close(t);
        return tr_error(-EINVAL, "the topology of the machine cannot be read");
    }
    *out = t;
    return 0;
}

void tr_topology_close(struct tr_topology *t)
{
    if (!t)
        return;
    hwloc_topology_destroy(t->hwloc);
    tr_free(TR_MEM_MISC, t);
}

int tr_topology_nodes(const struct tr_topology *t)
{
    return hwloc_get_nbobjs_by_type(t->hwloc, HWLOC_OBJ_NUMANODE);
}

/* By logical index, as tr_topology_bind takes it. */
static int only_node(const struct tr_topology *t, hwloc_const_nodeset_t set)
{
    int found = -1;

    for (int i = 0; set && i < tr_topology_nodes(t); i++) {
        hwloc_obj_t node = hwloc_get_obj_by_type(t->hwloc, HWLOC_OBJ_NUMANODE, (unsigned)i);

        if (!hwloc_bitmap_isset(set, node->os_index))
            continue;
        if (found >= 0)
            return -1;
        found = i;
    }
    return found;
}

static int node_of(const struct tr_topology *t, hwloc_obj_t io)
{
    hwloc_obj_t part = hwloc_get_non_io_ancestor_obj(t->hwloc, io);

    return part ? only_node(t, part->nodeset) : -1;
}

int tr_topology_node_of_gpus(const struct tr_topology *t)
{
    hwloc_obj_t pci = NULL;
    int found = -1;

    while ((pci = hwloc_get_next_pcidev(t->hwloc, pci))) {
        unsigned kind = pci->attr->pcidev.class_id;
        int node;

        if (pci->attr->pcidev.vendor_id != NVIDIA || (kind != CLASS_VGA && kind != CLASS_3D))
            continue;
        node = node_of(t, pci);
        if (node < 0 || (found >= 0 && node != found))
            return -1;
        found = node;
    }
    return found;
}

int tr_topology_node_of_disk(const struct tr_topology *t, const char *name)
{
    hwloc_obj_t device = NULL;

    while ((device = hwloc_get_next_osdev(t->hwloc, device)))
        if (device->attr->osdev.type == HWLOC_OBJ_OSDEV_BLOCK && !strcmp(device->name, name))
            return node_of(t, device);
    return -1;
}

int tr_topology_node_of_cores(const struct tr_topology *t)
{
    hwloc_bitmap_t cores = hwloc_bitmap_alloc(), nodes = hwloc_bitmap_alloc();
    int node = -1;

    if (cores && nodes && hwloc_get_cpubind(t->hwloc, cores, HWLOC_CPUBIND_PROCESS) == 0) {
        hwloc_cpuset_to_nodeset(t->hwloc, cores, nodes);
        node = only_node(t, nodes);
    }
    hwloc_bitmap_free(cores);
    hwloc_bitmap_free(nodes);
    return node;
}

int tr_topology_choose(const struct tr_topology *t, int gpu, const char *disk)
{
    int node = gpu ? tr_topology_node_of_gpus(t) : tr_topology_node_of_cores(t);

    return node < 0 && *disk ? tr_topology_node_of_disk(t, disk) : node;
}

/* Not strict: a node that is full is no reason to fail. */
int tr_topology_bind(const struct tr_topology *t, void *p, size_t bytes, int node)
{
    hwloc_obj_t o = hwloc_get_obj_by_type(t->hwloc, HWLOC_OBJ_NUMANODE, (unsigned)node);

    if (!o || !hwloc_topology_is_thissystem(t->hwloc))
        return -ENOSYS;
    if (hwloc_set_area_membind(t->hwloc, p, bytes, o->nodeset, HWLOC_MEMBIND_BIND,
                               HWLOC_MEMBIND_BYNODESET) < 0)
        return -errno;
    return 0;
}
