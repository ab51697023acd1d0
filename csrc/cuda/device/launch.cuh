// Launches of kernels, and their dynamic shared memory. The tests without a GPU replace this header
// by its twin in tests/fiber/cuda, which runs the same kernels on a CPU.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/device/blocks.h"

namespace mlpkern::cuda {

constexpr size_t kDefaultShared = 48 << 10;  // bytes of a block without opt-in,
constexpr size_t kStaticShared = 16 << 10;   // of which static arrays take at most this
constexpr int kKnownDevices = 64;            // devices with cached answers

// Returns an error of the CUDA runtime and clears it there: otherwise the next caller of
// cudaGetLastError, here or elsewhere in the process, would take it for its own.
inline cudaError_t taken(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

// A property of the current device, queried once: `ask(device, &found)` returns a cudaError_t.
template <class Ask>
cudaError_t ask_once(std::atomic<int> (&kept)[kKnownDevices], int* found, const Ask& ask) {
  int device = 0;
  cudaError_t error = taken(cudaGetDevice(&device));
  if (error != cudaSuccess) return error;
  const bool known = device < kKnownDevices;
  if (known && (*found = kept[device].load(std::memory_order_relaxed)) > 0) return cudaSuccess;
  error = taken(ask(device, found));
  if (known && error == cudaSuccess) kept[device].store(*found, std::memory_order_relaxed);
  return error;
}

// Shared memory that a device gives one block, static and dynamic. The driver reserves some of it:
// the opt-in limit may or may not exclude that, so take the smaller of both.
inline cudaError_t shared_of_block(int device, int* bytes) {
  int most = 0, all = 0, reserved = 0;
  cudaError_t error =
      cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&reserved, cudaDevAttrReservedSharedMemoryPerBlock, device);
  *bytes = most < all - reserved ? most : all - reserved;
  return error;
}

// Allows blocks of `kernel` as much dynamic shared memory as the current device has for them, and
// returns it in *bytes. Once per kernel and device, since this takes longer than a launch.
template <auto kernel>
cudaError_t allow_shared(int* bytes) {
  static std::atomic<int> allowed[kKnownDevices];
  return ask_once(allowed, bytes, [](int device, int* most) {
    cudaFuncAttributes attributes;
    cudaError_t error = shared_of_block(device, most);
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, kernel);
    if (error != cudaSuccess) return error;
    // From sm_90 on this may include what the driver reserves: a block then gets that much less.
    *most -= static_cast<int>(attributes.sharedSizeBytes);
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, *most);
  });
}

// Bytes of dynamic shared memory that a block of `kernel` may have on the current device. Whoever
// plans a launch uses this limit, so that the launch is not refused.
template <auto kernel>
size_t shared_limit() {
  int bytes = 0;
  return allow_shared<kernel>(&bytes) == cudaSuccess ? static_cast<size_t>(bytes) : 0;
}

// A kernel as an argument, for functions that choose between kernels.
template <auto kernel>
using Kernel = std::integral_constant<decltype(kernel), kernel>;

// kernel<<<blocks, threads, shared_bytes, stream>>>(args...). Launches nothing for no blocks.
template <class... Params>
cudaError_t launch_as(void (*kernel)(Params...), Blocks blocks, dim3 threads, size_t shared_bytes,
                      void* stream, std::common_type_t<Params>... args) {
  void* addresses[] = {&args..., nullptr};
  return taken(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), blocks.grid(), threads,
                                addresses, shared_bytes, static_cast<cudaStream_t>(stream)));
}

template <auto kernel, class... Args>
cudaError_t launch(Blocks blocks, dim3 threads, size_t shared_bytes, void* stream, Args... args) {
  if (blocks.none()) return cudaSuccess;
  if (!blocks.make_a_grid()) return cudaErrorInvalidConfiguration;
  if (shared_bytes > kDefaultShared - kStaticShared) {
    int most = 0;
    const cudaError_t error = allow_shared<kernel>(&most);
    if (error != cudaSuccess) return error;
    if (shared_bytes > static_cast<size_t>(most)) return cudaErrorInvalidConfiguration;
  }
  return launch_as(kernel, blocks, threads, shared_bytes, stream, args...);
}

// The dynamic shared memory of the running block, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char mlpkern_dynamic_shared[];
  return reinterpret_cast<T*>(mlpkern_dynamic_shared);
}

// Multiprocessors of the current device, for the size of a grid. Results must not depend on it.
inline int multiprocessors() {
  static std::atomic<int> count[kKnownDevices];
  int found = 0;
  const cudaError_t error = ask_once(count, &found, [](int device, int* number) {
    return cudaDeviceGetAttribute(number, cudaDevAttrMultiProcessorCount, device);
  });
  return error == cudaSuccess ? found : 1;
}

}  // namespace mlpkern::cuda
