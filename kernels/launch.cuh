/* SPDX-License-Identifier: Apache-2.0
 *
 * How a kernel is launched and how it declares shared memory: the three things whose spelling
 * differs between nvcc and the CPU twin of the tests (tests/cuda). A kernel that uses these and
 * kernels/ptx.cuh compiles with both.
 *
 *   TR_LAUNCH((kernel<A, B>), grid, block, shared_bytes, stream, arguments...)
 *       asynchronous; arguments are converted to the kernel's parameters and copied at the call.
 *       The caller checks cudaGetLastError() afterwards.
 *   TR_SHARED(float, tile, [32][33])     static shared memory, 16-byte aligned; always an array
 *   TR_SHARED_DYNAMIC(uint16_t, tile)    the launch's shared_bytes, 16-byte aligned
 *
 * The twin poisons shared memory with 0xff bytes (NaN in every float format) at the start of each
 * block and guards its ends.
 */
#ifndef TR_KERNELS_LAUNCH_CUH
#define TR_KERNELS_LAUNCH_CUH

#include <stddef.h>

#ifdef __CUDACC__

#define TR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)

#define TR_SHARED(type, name, dims) __shared__ __align__(16) type name dims

/* One extern array for all kernels: CUDA wants one type for one name. */
extern __shared__ uint4 tr_shared_dynamic[];
#define TR_SHARED_DYNAMIC(type, name) type *name = reinterpret_cast<type *>(tr_shared_dynamic)

#else

#include <cuda_runtime.h> /* of tests/cuda/include, with the words of the shim */

/* Queues body(arg) for every thread of the grid, then destroy(arg), which it also calls when it
 * refuses (tests/cuda/runtime). */
extern "C" cudaError_t tr_fake_launch(cudaStream_t s, const struct tr_shim_grid *g,
                                      void (*body)(void *), void (*destroy)(void *), void *arg);

/* Keeps a parameter's type from being deduced from the argument: the kernel's type decides. */
template <class T> struct tr_launch_as {
    typedef T type;
};

/* What the fake runtime looks at: a kernel gets no pointer to pageable host memory. */
template <class T> static inline const void *tr_launch_pointer(T *p)
{
    return reinterpret_cast<const void *>(p);
}
template <class T> static inline const void *tr_launch_pointer(const T &)
{
    return nullptr;
}

template <class... P>
static inline void tr_launch(const struct tr_shim_grid &g, cudaStream_t stream,
                             void (*kernel)(P...), typename tr_launch_as<P>::type... args)
{
    auto call = [=] { kernel(args...); };
    typedef decltype(call) closure;
    auto body = [](void *p) { (*static_cast<closure *>(p))(); };
    auto destroy = [](void *p) { delete static_cast<closure *>(p); };
    const void *pointers[] = {tr_launch_pointer(args)..., nullptr};
    struct tr_shim_grid launch = g;

    launch.kernel = reinterpret_cast<const void *>(kernel);
    launch.pointers = pointers;
    launch.n_pointers = sizeof...(args);
    (void)tr_fake_launch(stream, &launch, body, destroy, new closure(call));
}

/* The kernel comes in parentheses where it has commas. */
#define TR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    tr_launch(tr_shim_grid{dim3(grid), dim3(block), static_cast<size_t>(shared_bytes)}, stream,    \
              kernel, ##__VA_ARGS__)

#define TR_SHARED(type, name, dims)                                                                \
    static char tr_key_##name;                                                                     \
    type(&name) dims = *static_cast<type(*) dims>(                                                 \
        tr_shim_shared(&tr_key_##name, #name, sizeof(type dims), alignof(type)))

#define TR_SHARED_DYNAMIC(type, name)                                                              \
    type *name = static_cast<type *>(tr_shim_shared_dynamic(#name))

#endif
#endif
