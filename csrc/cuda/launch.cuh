// How kernels are launched and where they find their dynamic shared memory. The tests without a GPU
// replace this header by its twin in tests/fiber/cuda, which runs the same kernels on a CPU.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace mlpkern::cuda {

constexpr size_t kDefaultShared = 48 << 10;  // bytes a block may have without asking

// Lets `kernel` have as much dynamic shared memory as the device gives one block. Once per kernel
// and device: the call takes longer than a launch.
template <auto kernel>
cudaError_t allow_shared() {
  static std::atomic<uint64_t> allowed{0};  // a bit per device
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
  if (allowed.load(std::memory_order_relaxed) & bit) return cudaSuccess;
  error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  cudaFuncAttributes attributes;
  error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               most - static_cast<int>(attributes.sharedSizeBytes));
  if (error == cudaSuccess) allowed.fetch_or(bit, std::memory_order_relaxed);
  return error;
}

// kernel<<<grid, block, shared_bytes, stream>>>(args...). An empty grid launches nothing.
template <auto kernel, class... Args>
cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, void* stream, Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (shared_bytes > kDefaultShared) {
    const cudaError_t error = allow_shared<kernel>();
    if (error != cudaSuccess) return error;
  }
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(args...);
  return cudaGetLastError();
}

// The dynamic shared memory of the running block, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char mlpkern_dynamic_shared[];
  return reinterpret_cast<T*>(mlpkern_dynamic_shared);
}

// Multiprocessors of the current device, for the size of a grid. Results must not depend on it.
inline int multiprocessors() {
  static std::atomic<int> count[64];
  int device = 0, found = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= 64) return 1;
  found = count[device].load(std::memory_order_relaxed);
  if (found > 0) return found;
  if (cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
    return 1;
  count[device].store(found, std::memory_order_relaxed);
  return found;
}

// Bytes of dynamic shared memory that one block may ask for on the current device.
inline int shared_limit() {
  int device = 0, most = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
    return static_cast<int>(kDefaultShared);
  return most;
}

}  // namespace mlpkern::cuda
