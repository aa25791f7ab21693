/* SPDX-License-Identifier: Apache-2.0
 *
 * Which memory is near to what, on machines with several NUMA nodes: through hwloc where the
 * program was built with it. Nothing here is needed for a right result, so whatever is unknown is
 * -1, "no node in particular".
 */
#ifndef TR_BASE_TOPOLOGY_H
#define TR_BASE_TOPOLOGY_H

#include <stddef.h>

struct tr_topology;

/* NULL: this machine. For tests: an XML description, or "numa:2 core:2 pu:1"; to such a one no
 * memory can be bound. -ENOSYS: built without hwloc. */
int tr_topology_open(struct tr_topology **out, const char *description);
void tr_topology_close(struct tr_topology *t); /* NULL is allowed */

int tr_topology_nodes(const struct tr_topology *t);
/* The node of all NVIDIA GPUs, of a block device ("nvme0n1"), of the cores this process may use: -1
 * where it is not known, or where they are on several. */
int tr_topology_node_of_gpus(const struct tr_topology *t);
int tr_topology_node_of_disk(const struct tr_topology *t, const char *name);
int tr_topology_node_of_cores(const struct tr_topology *t);
/* Where bulk memory belongs: near to the GPUs where they compute, else to the cores; where that
 * says nothing, to the drive ("": unknown). */
int tr_topology_choose(const struct tr_topology *t, int gpu, const char *disk);
/* Pages of this memory come from the node, as long as it has any. */
int tr_topology_bind(const struct tr_topology *t, void *p, size_t bytes, int node);

#endif
