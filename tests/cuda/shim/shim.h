/* SPDX-License-Identifier: Apache-2.0
 *
 * The CUDA execution model on one thread of the system: a grid's blocks one after the other, a
 * block's threads as fibers that are switched at barriers and warp collectives and nowhere else.
 * What a GPU leaves undefined is made visible: shared memory is poison (0xff bytes) until it is
 * written, the target of a cp.async until its wait; what can never complete, or is against the
 * rules, ends the run with a message that names file, line, block and thread:
 *
 *   - threads of a block that meet at different barriers, or exit while others wait
 *   - warp collectives whose mask names lanes that do not come, reads from a lane outside the mask
 *   - a thread that ends with a cp.async not waited for, or copies to what is not shared memory
 *   - writes past the ends of shared memory
 *
 * Orders: greedy (a warp runs as far as it can before the next one) ascending or descending, or
 * random with a seed. Greedy orders find a missing barrier that round-robin and random ones miss,
 * so a kernel is run in all three: TR_SHIM_ORDER=ascending|descending|random:SEED, by default
 * ascending. Lanes of a warp run one after the other between warp collectives.
 *
 * Threads: any number may run grids at once; each keeps its fibers until it ends.
 */
#ifndef TR_TESTS_CUDA_SHIM_H
#define TR_TESTS_CUDA_SHIM_H

#include <stddef.h>

#ifdef __cplusplus
#include <tr_shim_types.h>
extern "C" {
#endif

struct tr_shim_grid;

/* Runs the whole grid on the calling thread, body(arg) once per CUDA thread. 0, or -1 with a
 * message in `error`; the grid's other threads are then abandoned where they stand. */
int tr_shim_run(const struct tr_shim_grid *g, void (*body)(void *arg), void *arg, char *error,
                size_t room);

/* "ascending", "descending" or "random:SEED", for the runs that follow, in place of
 * TR_SHIM_ORDER. 0 or -EINVAL. */
int tr_shim_set_order(const char *order);

#ifdef __cplusplus
}
#endif
#endif
