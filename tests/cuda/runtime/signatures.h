/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything that the project uses of the CUDA runtime and of cuBLASLt: functions with their types,
 * constants with their values, fields with their types. signatures.cc compares it with our own
 * headers and with NVIDIA's; signatures.sh, that it is complete.
 */
#ifndef TR_TESTS_CUDA_SIGNATURES_H
#define TR_TESTS_CUDA_SIGNATURES_H

#define SIGNATURES_FUNCTIONS(X)                                                                    \
    X(cudaError_t, cudaGetDeviceCount, (int *))                                                    \
    X(cudaError_t, cudaSetDevice, (int))                                                           \
    X(cudaError_t, cudaGetDevice, (int *))                                                         \
    X(cudaError_t, cudaGetDeviceProperties, (struct cudaDeviceProp *, int))                        \
    X(cudaError_t, cudaDeviceGetAttribute, (int *, enum cudaDeviceAttr, int))                      \
    X(cudaError_t, cudaDeviceGetPCIBusId, (char *, int, int))                                      \
    X(cudaError_t, cudaDeviceSynchronize, (void))                                                  \
    X(cudaError_t, cudaDeviceReset, (void))                                                        \
    X(cudaError_t, cudaMemGetInfo, (size_t *, size_t *))                                           \
    X(cudaError_t, cudaDriverGetVersion, (int *))                                                  \
    X(cudaError_t, cudaRuntimeGetVersion, (int *))                                                 \
    X(cudaError_t, cudaMalloc, (void **, size_t))                                                  \
    X(cudaError_t, cudaFree, (void *))                                                             \
    X(cudaError_t, cudaHostAlloc, (void **, size_t, unsigned int))                                 \
    X(cudaError_t, cudaFreeHost, (void *))                                                         \
    X(cudaError_t, cudaHostRegister, (void *, size_t, unsigned int))                               \
    X(cudaError_t, cudaHostUnregister, (void *))                                                   \
    X(cudaError_t, cudaMemcpy, (void *, const void *, size_t, enum cudaMemcpyKind))                \
    X(cudaError_t, cudaMemcpyAsync,                                                                \
      (void *, const void *, size_t, enum cudaMemcpyKind, cudaStream_t))                           \
    X(cudaError_t, cudaMemsetAsync, (void *, int, size_t, cudaStream_t))                           \
    X(cudaError_t, cudaStreamCreateWithFlags, (cudaStream_t *, unsigned int))                      \
    X(cudaError_t, cudaStreamDestroy, (cudaStream_t))                                              \
    X(cudaError_t, cudaStreamSynchronize, (cudaStream_t))                                          \
    X(cudaError_t, cudaStreamQuery, (cudaStream_t))                                                \
    X(cudaError_t, cudaStreamWaitEvent, (cudaStream_t, cudaEvent_t, unsigned int))                 \
    X(cudaError_t, cudaEventCreateWithFlags, (cudaEvent_t *, unsigned int))                        \
    X(cudaError_t, cudaEventRecord, (cudaEvent_t, cudaStream_t))                                   \
    X(cudaError_t, cudaEventSynchronize, (cudaEvent_t))                                            \
    X(cudaError_t, cudaEventQuery, (cudaEvent_t))                                                  \
    X(cudaError_t, cudaEventElapsedTime, (float *, cudaEvent_t, cudaEvent_t))                      \
    X(cudaError_t, cudaEventDestroy, (cudaEvent_t))                                                \
    X(cudaError_t, cudaLaunchHostFunc, (cudaStream_t, cudaHostFn_t, void *))                       \
    X(cudaError_t, cudaGetLastError, (void))                                                       \
    X(cudaError_t, cudaPeekAtLastError, (void))                                                    \
    X(const char *, cudaGetErrorName, (cudaError_t))                                               \
    X(const char *, cudaGetErrorString, (cudaError_t))                                             \
    X(cudaError_t, cudaFuncSetAttribute, (const void *, enum cudaFuncAttribute, int))              \
    X(cudaError_t, cudaFuncGetAttributes, (struct cudaFuncAttributes *, const void *))             \
    X(cublasStatus_t, cublasLtCreate, (cublasLtHandle_t *))                                        \
    X(cublasStatus_t, cublasLtDestroy, (cublasLtHandle_t))                                         \
    X(const char *, cublasLtGetStatusName, (cublasStatus_t))                                       \
    X(size_t, cublasLtGetVersion, (void))                                                          \
    X(cublasStatus_t, cublasLtMatrixLayoutCreate,                                                  \
      (cublasLtMatrixLayout_t *, cudaDataType, uint64_t, uint64_t, int64_t))                       \
    X(cublasStatus_t, cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t))                       \
    X(cublasStatus_t, cublasLtMatrixLayoutSetAttribute,                                            \
      (cublasLtMatrixLayout_t, cublasLtMatrixLayoutAttribute_t, const void *, size_t))             \
    X(cublasStatus_t, cublasLtMatmulDescCreate,                                                    \
      (cublasLtMatmulDesc_t *, cublasComputeType_t, cudaDataType_t))                               \
    X(cublasStatus_t, cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t))                           \
    X(cublasStatus_t, cublasLtMatmulDescSetAttribute,                                              \
      (cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, const void *, size_t))                \
    X(cublasStatus_t, cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t *))              \
    X(cublasStatus_t, cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t))               \
    X(cublasStatus_t, cublasLtMatmulPreferenceSetAttribute,                                        \
      (cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void *, size_t))    \
    X(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic,                                              \
      (cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,     \
       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int,            \
       cublasLtMatmulHeuristicResult_t *, int *))                                                  \
    X(cublasStatus_t, cublasLtMatmul,                                                              \
      (cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *, cublasLtMatrixLayout_t, \
       const void *, cublasLtMatrixLayout_t, const void *, const void *, cublasLtMatrixLayout_t,   \
       void *, cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t,               \
       cudaStream_t))

#define SIGNATURES_CONSTANTS(X)                                                                    \
    X(cudaSuccess, 0)                                                                              \
    X(cudaErrorInvalidValue, 1)                                                                    \
    X(cudaErrorMemoryAllocation, 2)                                                                \
    X(cudaErrorInitializationError, 3)                                                             \
    X(cudaErrorInvalidConfiguration, 9)                                                            \
    X(cudaErrorInvalidMemcpyDirection, 21)                                                         \
    X(cudaErrorInsufficientDriver, 35)                                                             \
    X(cudaErrorDevicesUnavailable, 46)                                                             \
    X(cudaErrorInvalidDeviceFunction, 98)                                                          \
    X(cudaErrorNoDevice, 100)                                                                      \
    X(cudaErrorInvalidDevice, 101)                                                                 \
    X(cudaErrorNoKernelImageForDevice, 209)                                                        \
    X(cudaErrorECCUncorrectable, 214)                                                              \
    X(cudaErrorUnsupportedPtxVersion, 222)                                                         \
    X(cudaErrorOperatingSystem, 304)                                                               \
    X(cudaErrorInvalidResourceHandle, 400)                                                         \
    X(cudaErrorNotReady, 600)                                                                      \
    X(cudaErrorIllegalAddress, 700)                                                                \
    X(cudaErrorLaunchOutOfResources, 701)                                                          \
    X(cudaErrorLaunchTimeout, 702)                                                                 \
    X(cudaErrorHostMemoryAlreadyRegistered, 712)                                                   \
    X(cudaErrorHostMemoryNotRegistered, 713)                                                       \
    X(cudaErrorMisalignedAddress, 716)                                                             \
    X(cudaErrorLaunchFailure, 719)                                                                 \
    X(cudaErrorNotPermitted, 800)                                                                  \
    X(cudaErrorNotSupported, 801)                                                                  \
    X(cudaErrorSystemNotReady, 802)                                                                \
    X(cudaErrorSystemDriverMismatch, 803)                                                          \
    X(cudaErrorUnknown, 999)                                                                       \
    X(cudaMemcpyHostToHost, 0)                                                                     \
    X(cudaMemcpyHostToDevice, 1)                                                                   \
    X(cudaMemcpyDeviceToHost, 2)                                                                   \
    X(cudaMemcpyDeviceToDevice, 3)                                                                 \
    X(cudaMemcpyDefault, 4)                                                                        \
    X(cudaDevAttrMaxThreadsPerBlock, 1)                                                            \
    X(cudaDevAttrMaxSharedMemoryPerBlock, 8)                                                       \
    X(cudaDevAttrWarpSize, 10)                                                                     \
    X(cudaDevAttrClockRate, 13)                                                                    \
    X(cudaDevAttrMultiProcessorCount, 16)                                                          \
    X(cudaDevAttrIntegrated, 18)                                                                   \
    X(cudaDevAttrPciBusId, 33)                                                                     \
    X(cudaDevAttrPciDeviceId, 34)                                                                  \
    X(cudaDevAttrMemoryClockRate, 36)                                                              \
    X(cudaDevAttrGlobalMemoryBusWidth, 37)                                                         \
    X(cudaDevAttrL2CacheSize, 38)                                                                  \
    X(cudaDevAttrAsyncEngineCount, 40)                                                             \
    X(cudaDevAttrPciDomainId, 50)                                                                  \
    X(cudaDevAttrComputeCapabilityMajor, 75)                                                       \
    X(cudaDevAttrComputeCapabilityMinor, 76)                                                       \
    X(cudaDevAttrMaxSharedMemoryPerMultiprocessor, 81)                                             \
    X(cudaDevAttrMaxSharedMemoryPerBlockOptin, 97)                                                 \
    X(cudaDevAttrHostRegisterSupported, 99)                                                        \
    X(cudaFuncAttributeMaxDynamicSharedMemorySize, 8)                                              \
    X(cudaFuncAttributePreferredSharedMemoryCarveout, 9)                                           \
    X(cudaHostAllocDefault, 0x00)                                                                  \
    X(cudaHostAllocPortable, 0x01)                                                                 \
    X(cudaHostAllocMapped, 0x02)                                                                   \
    X(cudaHostAllocWriteCombined, 0x04)                                                            \
    X(cudaHostRegisterDefault, 0x00)                                                               \
    X(cudaHostRegisterPortable, 0x01)                                                              \
    X(cudaHostRegisterMapped, 0x02)                                                                \
    X(cudaHostRegisterReadOnly, 0x08)                                                              \
    X(cudaStreamDefault, 0x00)                                                                     \
    X(cudaStreamNonBlocking, 0x01)                                                                 \
    X(cudaEventDefault, 0x00)                                                                      \
    X(cudaEventBlockingSync, 0x01)                                                                 \
    X(cudaEventDisableTiming, 0x02)                                                                \
    X(CUDA_R_32F, 0)                                                                               \
    X(CUDA_R_64F, 1)                                                                               \
    X(CUDA_R_16F, 2)                                                                               \
    X(CUDA_R_16BF, 14)                                                                             \
    X(CUBLAS_STATUS_SUCCESS, 0)                                                                    \
    X(CUBLAS_STATUS_NOT_INITIALIZED, 1)                                                            \
    X(CUBLAS_STATUS_ALLOC_FAILED, 3)                                                               \
    X(CUBLAS_STATUS_INVALID_VALUE, 7)                                                              \
    X(CUBLAS_STATUS_ARCH_MISMATCH, 8)                                                              \
    X(CUBLAS_STATUS_MAPPING_ERROR, 11)                                                             \
    X(CUBLAS_STATUS_EXECUTION_FAILED, 13)                                                          \
    X(CUBLAS_STATUS_INTERNAL_ERROR, 14)                                                            \
    X(CUBLAS_STATUS_NOT_SUPPORTED, 15)                                                             \
    X(CUBLAS_STATUS_LICENSE_ERROR, 16)                                                             \
    X(CUBLAS_OP_N, 0)                                                                              \
    X(CUBLAS_COMPUTE_16F, 64)                                                                      \
    X(CUBLAS_COMPUTE_32F, 68)                                                                      \
    X(CUBLAS_COMPUTE_32F_PEDANTIC, 69)                                                             \
    X(CUBLAS_COMPUTE_64F, 70)                                                                      \
    X(CUBLAS_COMPUTE_32F_FAST_TF32, 77)                                                            \
    X(CUBLASLT_POINTER_MODE_HOST, 0)                                                               \
    X(CUBLASLT_POINTER_MODE_DEVICE, 1)                                                             \
    X(CUBLASLT_ORDER_COL, 0)                                                                       \
    X(CUBLASLT_MATRIX_LAYOUT_TYPE, 0)                                                              \
    X(CUBLASLT_MATRIX_LAYOUT_ORDER, 1)                                                             \
    X(CUBLASLT_MATRIX_LAYOUT_ROWS, 2)                                                              \
    X(CUBLASLT_MATRIX_LAYOUT_COLS, 3)                                                              \
    X(CUBLASLT_MATRIX_LAYOUT_LD, 4)                                                                \
    X(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 5)                                                       \
    X(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, 6)                                              \
    X(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, 0)                                                        \
    X(CUBLASLT_MATMUL_DESC_SCALE_TYPE, 1)                                                          \
    X(CUBLASLT_MATMUL_DESC_POINTER_MODE, 2)                                                        \
    X(CUBLASLT_MATMUL_DESC_TRANSA, 3)                                                              \
    X(CUBLASLT_MATMUL_DESC_TRANSB, 4)                                                              \
    X(CUBLASLT_MATMUL_DESC_EPILOGUE, 7)                                                            \
    X(CUBLASLT_MATMUL_DESC_BIAS_POINTER, 8)                                                        \
    X(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, 26)                                                     \
    X(CUBLASLT_EPILOGUE_DEFAULT, 1)                                                                \
    X(CUBLASLT_REDUCTION_SCHEME_NONE, 0)                                                           \
    X(CUBLASLT_REDUCTION_SCHEME_INPLACE, 1)                                                        \
    X(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 2)                                                   \
    X(CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 4)                                                    \
    X(CUBLASLT_REDUCTION_SCHEME_MASK, 0x7)                                                         \
    X(CUBLASLT_MATMUL_PREF_SEARCH_MODE, 0)                                                         \
    X(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 1)                                                 \
    X(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, 3)                                               \
    X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 5)                                               \
    X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 6)                                               \
    X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, 7)                                               \
    X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 8)                                               \
    X(CUBLAS_OP_T, 1)                                                                              \
    X(CUBLAS_OP_C, 2)                                                                              \
    X(CUBLASLT_ORDER_ROW, 1)                                                                       \
    X(CUBLASLT_EPILOGUE_BIAS, 4)

#define SIGNATURES_FIELDS(X)                                                                       \
    X(struct cudaFuncAttributes, sharedSizeBytes, size_t)                                          \
    X(struct cudaFuncAttributes, constSizeBytes, size_t)                                           \
    X(struct cudaFuncAttributes, localSizeBytes, size_t)                                           \
    X(struct cudaFuncAttributes, maxThreadsPerBlock, int)                                          \
    X(struct cudaFuncAttributes, numRegs, int)                                                     \
    X(struct cudaFuncAttributes, ptxVersion, int)                                                  \
    X(struct cudaFuncAttributes, binaryVersion, int)                                               \
    X(struct cudaFuncAttributes, maxDynamicSharedSizeBytes, int)                                   \
    X(struct cudaDeviceProp, name, char[256])                                                      \
    X(struct cudaDeviceProp, totalGlobalMem, size_t)                                               \
    X(struct cudaDeviceProp, sharedMemPerBlock, size_t)                                            \
    X(struct cudaDeviceProp, regsPerBlock, int)                                                    \
    X(struct cudaDeviceProp, warpSize, int)                                                        \
    X(struct cudaDeviceProp, maxThreadsPerBlock, int)                                              \
    X(struct cudaDeviceProp, maxThreadsDim, int[3])                                                \
    X(struct cudaDeviceProp, maxGridSize, int[3])                                                  \
    X(struct cudaDeviceProp, major, int)                                                           \
    X(struct cudaDeviceProp, minor, int)                                                           \
    X(struct cudaDeviceProp, multiProcessorCount, int)                                             \
    X(struct cudaDeviceProp, integrated, int)                                                      \
    X(struct cudaDeviceProp, canMapHostMemory, int)                                                \
    X(struct cudaDeviceProp, ECCEnabled, int)                                                      \
    X(struct cudaDeviceProp, pciBusID, int)                                                        \
    X(struct cudaDeviceProp, pciDeviceID, int)                                                     \
    X(struct cudaDeviceProp, pciDomainID, int)                                                     \
    X(struct cudaDeviceProp, asyncEngineCount, int)                                                \
    X(struct cudaDeviceProp, unifiedAddressing, int)                                               \
    X(struct cudaDeviceProp, memoryBusWidth, int)                                                  \
    X(struct cudaDeviceProp, l2CacheSize, int)                                                     \
    X(struct cudaDeviceProp, maxThreadsPerMultiProcessor, int)                                     \
    X(struct cudaDeviceProp, sharedMemPerMultiprocessor, size_t)                                   \
    X(struct cudaDeviceProp, regsPerMultiprocessor, int)                                           \
    X(struct cudaDeviceProp, pageableMemoryAccess, int)                                            \
    X(struct cudaDeviceProp, sharedMemPerBlockOptin, size_t)                                       \
    X(struct cudaDeviceProp, hostRegisterSupported, int)                                           \
    X(cublasLtMatmulHeuristicResult_t, algo, cublasLtMatmulAlgo_t)                                 \
    X(cublasLtMatmulHeuristicResult_t, workspaceSize, size_t)                                      \
    X(cublasLtMatmulHeuristicResult_t, state, cublasStatus_t)                                      \
    X(cublasLtMatmulHeuristicResult_t, wavesCount, float)

#endif
