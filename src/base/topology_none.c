/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "src/base/topology.h"

int tr_topology_open(struct tr_topology **out, const char *description)
{
    (void)description;
    *out = NULL;
    return -ENOSYS;
}

void tr_topology_close(struct tr_topology *t)
{
    (void)t;
}

int tr_topology_nodes(const struct tr_topology *t)
{
    (void)t;
    return 1;
}

int tr_topology_node_of_gpus(const struct tr_topology *t)
{
    (void)t;
    return -1;
}

int tr_topology_node_of_disk(const struct tr_topology *t, const char *name)
{
    (void)t;
    (void)name;
    return -1;
}

int tr_topology_node_of_cores(const struct tr_topology *t)
{
    (void)t;
    return -1;
}

int tr_topology_choose(const struct tr_topology *t, int gpu, const char *disk)
{
    (void)t;
    (void)gpu;
    (void)disk;
    return -1;
}

int tr_topology_bind(const struct tr_topology *t, void *p, size_t bytes, int node)
{
    (void)t;
    (void)p;
    (void)bytes;
    (void)node;
    return -ENOSYS;
}
