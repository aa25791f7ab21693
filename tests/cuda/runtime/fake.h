/* SPDX-License-Identifier: Apache-2.0
 *
 * The fake CUDA runtime and cuBLASLt: what a test sees of them beside the CUDA interface itself.
 * Without a test's word they obey the environment variable TR_FAKE_CUDA, a list of words:
 *
 *   memory=1GiB     device memory; an allocation is charged as the driver does, in steps of 2 MiB
 *                   from 1 MiB on, of 512 bytes below
 *   overhead=0      what the context takes of it; cublas=2MiB: what cublasLtCreate takes
 *   pinned=SIZE     the most host memory that can be pinned (default: no limit); 1/512 of what is
 *                   pinned is taken of the device memory, for its page tables
 *   devices=1       0: cudaErrorNoDevice
 *   sm=86           compute capability
 *   driver=13000    0: no driver; older than 13000: cudaErrorInsufficientDriver
 *   delay=SEED      streams pause at random before each command, and copies of pageable memory
 *                   are as asynchronous as all others; 0: they do not, and are not
 *   blas=shape      sums of a product are cut as m, n and k say, as the real library may; without
 *                   it an element's bits depend on its row, its column and k alone
 *   fail=N:HOW      call N (counted from 1 over all functions that can fail) fails; N may be the
 *                   name of a function, or "launch": all its calls; NAME@K: the K-th of them.
 *                   HOW is an error number; "sticky": illegal address, in this call and all
 *                   later ones; "lost": a device that fell off its bus, likewise. Errors that end
 *                   a context (700 and above but not 712, 713, 8xx) are sticky by themselves, and
 *                   asynchronous where the call queues work: they show at the next synchronisation
 *   protect=1       device memory cannot be touched while no stream works on it, so that a host
 *                   that does dies of it, as it does where the memory is a GPU's. Streams then
 *                   meet in a lock, which blunts ThreadSanitizer
 *   leaks=CODE      the exit code of a process that leaves something behind (default: unchanged)
 *   count=FILE      gets the number of calls at exit, and in a second line, with fail=NAME@K, that
 *                   of the function's
 */
#ifndef TR_TESTS_CUDA_FAKE_H
#define TR_TESTS_CUDA_FAKE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Frees what is left and starts anew with these words. NULL: the environment's. */
void fake_configure(const char *words);
/* The n-th call from now (1: the next) fails as in fail=N:HOW. */
void fake_fail(uint64_t n, const char *how);
/* Calls so far. */
uint64_t fake_calls(void);
/* Pauses that delay=SEED has made so far. */
uint64_t fake_pauses(void);
/* The most commands that a stream has held at a time: it takes 1024, like the real ones about so
 * many, and makes whoever queues one more wait. */
unsigned fake_deepest(void);
/* What is not given back: streams, events, memory, cuBLASLt objects. Prints each on stderr. */
size_t fake_leaks(void);
/* The message of the last kernel that the execution model refused, "" if none. */
const char *fake_last_shim_error(void);

#ifdef __cplusplus
}
#endif

#endif
