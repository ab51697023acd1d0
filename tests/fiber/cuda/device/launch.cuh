// Twin of csrc/cuda/device/launch.cuh: launches run at once on the calling CPU thread.
#pragma once

#include <cuda_runtime.h>

#include <tuple>
#include <type_traits>

#include "cuda/device/blocks.h"
#include "fiber/run/grid.h"
#include "fiber/run/scheduler.h"

namespace mlpkern::cuda {

constexpr size_t kDefaultShared = 48 << 10;

template <auto kernel>
using Kernel = std::integral_constant<decltype(kernel), kernel>;

template <auto kernel, class... Args>
cudaError_t launch(Blocks blocks, dim3 threads, size_t shared_bytes, void*, Args... args) {
  if (blocks.none()) return cudaSuccess;
  if (!blocks.make_a_grid()) return cudaErrorInvalidConfiguration;
  const std::tuple<Args...> arguments(args...);
  fiber::Grid run;
  run.kernel = __PRETTY_FUNCTION__;
  run.blocks = blocks.grid();
  run.threads = threads;
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

template <auto kernel>
size_t shared_limit() {
  return fiber::shared_limit();
}

}  // namespace mlpkern::cuda
