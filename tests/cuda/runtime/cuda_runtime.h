// The part of CUDA's runtime that csrc/cuda/device/launch.cuh and library.cu call, as a mock: a
// test sets which call fails and the properties of the devices, and sees what was launched. Nothing
// runs.
//
// As in CUDA, a failed call leaves its error in the runtime until cudaGetLastError() takes it,
// whatever succeeds in between; and a launch gets at most what the device grants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#define CUDART_VERSION 13000
#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = struct CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101
};

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrReservedSharedMemoryPerBlock = 111
};

namespace mlpkern::scripted {

constexpr size_t kUnasked = 48 << 10;  // bytes of a block without cudaFuncSetAttribute

struct Launch {
  const void* kernel;
  dim3 grid, block;
  size_t shared;
};

struct Runtime {
  std::map<std::string, cudaError_t> fails;  // the calls that fail from here on
  std::set<std::string> called;
  cudaError_t last = cudaSuccess;
  int driver = 13000, devices = 128, current = 0;
  std::map<cudaDeviceAttr, int> has = {{cudaDevAttrMultiProcessorCount, 132},
                                       {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 << 10},
                                       {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 << 10},
                                       {cudaDevAttrReservedSharedMemoryPerBlock, 1 << 10}};
  size_t static_bytes = 0;             // of every kernel
  bool counts_reserved = false;        // whether sharedSizeBytes includes what the driver reserves
  std::map<const void*, int> dynamic;  // cudaFuncAttributeMaxDynamicSharedMemorySize
  std::vector<Launch> launches;
  void (*on_launch)(void** arguments) = nullptr;
  uintptr_t context = 7;  // of the driver

  cudaError_t answer(const char* call) {
    called.insert(call);
    const auto found = fails.find(call);
    return found == fails.end() ? cudaSuccess : fail(found->second);
  }
  cudaError_t fail(cudaError_t error) { return last = error; }

  // The shared memory of a block of a kernel besides its static arrays.
  size_t granted() {
    const auto of = [this](cudaDeviceAttr name) { return static_cast<size_t>(has[name]); };
    const size_t room = of(cudaDevAttrMaxSharedMemoryPerMultiprocessor) -
                        of(cudaDevAttrReservedSharedMemoryPerBlock);
    const size_t most = of(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    return (room < most ? room : most) - static_bytes;
  }
};

inline Runtime runtime;

}  // namespace mlpkern::scripted

#define MLPKERN_ANSWER(call)                                           \
  do {                                                                 \
    const cudaError_t error = mlpkern::scripted::runtime.answer(call); \
    if (error != cudaSuccess) return error;                            \
  } while (0)

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = mlpkern::scripted::runtime.last;
  mlpkern::scripted::runtime.last = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorString(cudaError_t error) { return error ? "an error" : "no error"; }

inline cudaError_t cudaDriverGetVersion(int* version) {
  MLPKERN_ANSWER("cudaDriverGetVersion");
  return *version = mlpkern::scripted::runtime.driver, cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  MLPKERN_ANSWER("cudaGetDeviceCount");
  return *count = mlpkern::scripted::runtime.devices, cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  MLPKERN_ANSWER("cudaGetDevice");
  return *device = mlpkern::scripted::runtime.current, cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  MLPKERN_ANSWER("cudaSetDevice");
  if (device >= mlpkern::scripted::runtime.devices)
    return mlpkern::scripted::runtime.fail(cudaErrorInvalidDevice);
  mlpkern::scripted::runtime.context = 1000 + static_cast<uintptr_t>(device);
  return mlpkern::scripted::runtime.current = device, cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  MLPKERN_ANSWER("cudaDeviceGetAttribute");
  return *value = mlpkern::scripted::runtime.has[attribute], cudaSuccess;
}

struct cudaDeviceProp {
  char name[256];
  int major, minor;
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  MLPKERN_ANSWER("cudaGetDeviceProperties");
  *properties = {"a card", 9, 0};
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  MLPKERN_ANSWER("cudaDeviceSynchronize");
  return cudaSuccess;
}

// --- Kernels -------------------------------------------------------------------------------------
struct cudaFuncAttributes {
  size_t sharedSizeBytes;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

template <class Function>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Function*) {
  MLPKERN_ANSWER("cudaFuncGetAttributes");
  auto& r = mlpkern::scripted::runtime;
  const int kept = r.counts_reserved ? r.has[cudaDevAttrReservedSharedMemoryPerBlock] : 0;
  attributes->sharedSizeBytes = r.static_bytes + static_cast<size_t>(kept);
  return cudaSuccess;
}
template <class Function>
cudaError_t cudaFuncSetAttribute(Function* kernel, cudaFuncAttribute, int bytes) {
  MLPKERN_ANSWER("cudaFuncSetAttribute");
  auto& r = mlpkern::scripted::runtime;
  if (bytes < 0 || static_cast<size_t>(bytes) > r.granted()) return r.fail(cudaErrorInvalidValue);
  r.dynamic[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}
inline cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments,
                                    size_t shared, cudaStream_t) {
  MLPKERN_ANSWER("cudaLaunchKernel");
  auto& r = mlpkern::scripted::runtime;
  const auto set = r.dynamic.find(kernel);
  const size_t most = set == r.dynamic.end() ? mlpkern::scripted::kUnasked - r.static_bytes
                                             : static_cast<size_t>(set->second);
  if (shared > most) return r.fail(cudaErrorInvalidValue);
  if (grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535 || block.x > 1024)
    return r.fail(cudaErrorInvalidConfiguration);
  r.launches.push_back({kernel, grid, block, shared});
  if (r.on_launch) r.on_launch(arguments);
  return cudaSuccess;
}

// --- Memory --------------------------------------------------------------------------------------
template <class T>
cudaError_t cudaMemcpyFromSymbol(void* to, const T& symbol, size_t bytes) {
  MLPKERN_ANSWER("cudaMemcpyFromSymbol");
  return std::memcpy(to, &symbol, bytes), cudaSuccess;
}
template <class T>
cudaError_t cudaMemcpyToSymbol(T& symbol, const void* from, size_t bytes) {
  MLPKERN_ANSWER("cudaMemcpyToSymbol");
  return std::memcpy(&symbol, from, bytes), cudaSuccess;
}
inline unsigned long long atomicCAS(unsigned long long* at, unsigned long long expected,
                                    unsigned long long value) {
  const unsigned long long before = *at;
  if (before == expected) *at = value;
  return before;
}

// --- The driver ----------------------------------------------------------------------------------
enum CUresult { CUDA_SUCCESS = 0 };
using CUcontext = struct CUctx_st*;
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0 };
constexpr unsigned long long cudaEnableDefault = 0;

inline CUresult scripted_get_context(CUcontext* context) {
  *context = reinterpret_cast<CUcontext>(mlpkern::scripted::runtime.context);
  return CUDA_SUCCESS;
}
inline CUresult scripted_set_context(CUcontext context) {
  mlpkern::scripted::runtime.context = reinterpret_cast<uintptr_t>(context);
  return CUDA_SUCCESS;
}
inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** address, unsigned,
                                                    unsigned long long,
                                                    cudaDriverEntryPointQueryResult* result) {
  MLPKERN_ANSWER("cudaGetDriverEntryPointByVersion");
  *address = std::strcmp(name, "cuCtxGetCurrent") == 0
                 ? reinterpret_cast<void*>(&scripted_get_context)
                 : reinterpret_cast<void*>(&scripted_set_context);
  return *result = cudaDriverEntryPointSuccess, cudaSuccess;
}
