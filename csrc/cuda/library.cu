// mlpkern/_cuda.so: the table of launchers that mlpkern/_C loads, each behind a device guard;
// whether driver and GPUs can run them; the bad ids that devices have recorded.
//
// Compile alone:
// nvcc -std=c++17 -arch=sm_90 -Icsrc -c csrc/cuda/library.cu
#include "cuda/library.h"

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdio>

#include "cuda/device/launch.cuh"

// The targets of this build, 900 for sm_90. MLPKERN_CUDA_PTX is the PTX that the driver compiles
// for newer GPUs, 0 if there is none.
#ifndef MLPKERN_CUDA_PTX
#define MLPKERN_CUDA_PTX 0
#endif

namespace mlpkern::cuda {

cudaError_t embedding_gather_take_bad_id(BadId* bad);
cudaError_t cross_entropy_take_bad_id(BadId* bad);

namespace {

constexpr int kTargets[] = {__CUDA_ARCH_LIST__};

// Makes a device current, and restores the previous context at the end. torch has its own CUDA
// runtime, so the current context comes from the driver, which both share.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    const Driver& driver = entry_points();
    restores_ = driver.get && driver.set && driver.get(&before_) == CUDA_SUCCESS;
    error_ = taken(cudaSetDevice(device));
  }
  ~DeviceGuard() {
    CUcontext now = nullptr;
    const Driver& driver = entry_points();
    if (restores_ && driver.get(&now) == CUDA_SUCCESS && now != before_) driver.set(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  cudaError_t error() const { return error_; }

 private:
  struct Driver {
    CUresult (*get)(CUcontext*) = nullptr;
    CUresult (*set)(CUcontext) = nullptr;
  };

  static const Driver& entry_points() {
    static const Driver found = [] {
      Driver driver;
      driver.get = reinterpret_cast<CUresult (*)(CUcontext*)>(symbol("cuCtxGetCurrent"));
      driver.set = reinterpret_cast<CUresult (*)(CUcontext)>(symbol("cuCtxSetCurrent"));
      return driver;
    }();
    return found;
  }

  static void* symbol(const char* name) {
    void* address = nullptr;
    cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &result);
#else
    const cudaError_t error = cudaGetDriverEntryPoint(name, &address, cudaEnableDefault, &result);
#endif
    return taken(error) == cudaSuccess && result == cudaDriverEntryPointSuccess ? address : nullptr;
  }

  bool restores_ = false;
  CUcontext before_ = nullptr;
  cudaError_t error_;
};

template <class Args, int (*launcher)(const Args&, void*)>
int on_device(const Args& args, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.error() != cudaSuccess) return guard.error();
  return taken(static_cast<cudaError_t>(launcher(args, stream)));
}

// Like the launcher, plans with the resources of the device.
template <class Args, size_t (*workspace)(const Args&)>
size_t workspace_on_device(const Args& args, int device) {
  const DeviceGuard guard(device);
  return guard.error() == cudaSuccess ? workspace(args) : 0;
}

template <class Args, ModelPath (*path)(const Args&)>
ModelPath path_on_device(const Args& args, int device) {
  const DeviceGuard guard(device);
  return guard.error() == cudaSuccess ? path(args) : ModelPath::none;
}

bool has_target(int major, int minor) {
  const int card = 100 * major + 10 * minor;
  for (const int target : kTargets)
    if (target / 100 == major && target <= card) return true;
  return MLPKERN_CUDA_PTX > 0 && card >= MLPKERN_CUDA_PTX;
}

bool status(char* reason, char* detail, size_t size) {
  int driver = 0, cards = 0;
  cudaError_t error = taken(cudaDriverGetVersion(&driver));
  if (error != cudaSuccess || driver == 0) {
    std::snprintf(reason, size, "no NVIDIA driver is installed");
    return false;
  }
  error = taken(cudaGetDeviceCount(&cards));
  if (error == cudaErrorInsufficientDriver) {
    std::snprintf(reason, size, "the NVIDIA driver serves CUDA %d.%d, this build needs %d.%d",
                  driver / 1000, driver / 10 % 100, CUDART_VERSION / 1000,
                  CUDART_VERSION / 10 % 100);
    return false;
  }
  if (error != cudaSuccess || cards == 0) {
    std::snprintf(reason, size, "no NVIDIA card is visible%s%s", error == cudaSuccess ? "" : ": ",
                  error == cudaSuccess ? "" : cudaGetErrorString(error));
    return false;
  }
  size_t used = 0;
  for (int card = 0; card < cards; ++card) {
    cudaDeviceProp properties;
    error = taken(cudaGetDeviceProperties(&properties, card));
    if (error != cudaSuccess) {
      std::snprintf(reason, size, "card %d does not answer: %s", card, cudaGetErrorString(error));
      return false;
    }
    if (!has_target(properties.major, properties.minor)) {
      std::snprintf(reason, size,
                    "card %d (%s, sm_%d%d) is not among the targets of this build; "
                    "`pip install -e .` on this machine builds for it",
                    card, properties.name, properties.major, properties.minor);
      return false;
    }
    if (used < size) {
      const int written =
          std::snprintf(detail + used, size - used, "%s%s (sm_%d%d)", card ? ", " : "",
                        properties.name, properties.major, properties.minor);
      used += written > 0 ? static_cast<size_t>(written) : 0;
    }
  }
  return true;
}

int take_bad_id(int device, BadId* bad) {
  const DeviceGuard guard(device);
  if (guard.error() != cudaSuccess) return guard.error();
  bad->op = BadIdOp::none;
  cudaError_t error = cudaDeviceSynchronize();
  // One at a time: a bad id of another op is left for the next call.
  if (error == cudaSuccess) error = embedding_gather_take_bad_id(bad);
  if (error == cudaSuccess && bad->op == BadIdOp::none) error = cross_entropy_take_bad_id(bad);
  return taken(error);
}

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

#define MLPKERN_CUDA_ENTRY(name, Args) \
  on_device<Args, name>, workspace_on_device<Args, name##_workspace>,
const Library kLibrary = {kAbi,
                          MLPKERN_CUDA_KERNELS(MLPKERN_CUDA_ENTRY)
                              path_on_device<TrainSteps, train_steps_path>,
                          path_on_device<Evaluate, evaluate_path>,
                          status,
                          error_string,
                          take_bad_id};

}  // namespace
}  // namespace mlpkern::cuda

extern "C" __attribute__((visibility("default"))) const mlpkern::cuda::Library*
mlpkern_cuda_library() {
  return &mlpkern::cuda::kLibrary;
}
