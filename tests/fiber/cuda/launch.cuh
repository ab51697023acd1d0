// Twin of csrc/cuda/launch.cuh: launches run at once on the calling CPU thread.
#pragma once

#include <cuda_runtime.h>

#include <tuple>

#include "fiber/grid.h"
#include "fiber/scheduler.h"

namespace mlpkern::cuda {

constexpr size_t kDefaultShared = 48 << 10;

template <auto kernel, class... Args>
cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, void*, Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  const std::tuple<Args...> arguments(args...);
  fiber::Grid run;
  run.kernel = __PRETTY_FUNCTION__;
  run.blocks = grid;
  run.threads = block;
  run.shared_bytes = shared_bytes;
  run.arguments = &arguments;
  run.body = [](const void* packed) {
    std::apply([](const Args&... values) { kernel(values...); },
               *static_cast<const std::tuple<Args...>*>(packed));
  };
  return fiber::run(run) ? cudaSuccess : cudaErrorInvalidConfiguration;
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(fiber::dynamic_shared_memory());
}

inline int multiprocessors() { return fiber::multiprocessors(); }
inline int shared_limit() { return static_cast<int>(fiber::shared_limit()); }

}  // namespace mlpkern::cuda
