// The CUDA kernels that train and evaluate whole models, each in the shared memory of one
// multiprocessor: which of them runs a model, and its launch.
#pragma once

#include <string>

#include "binding/bindings.h"
#include "binding/model/model_tensors.h"

namespace mlpkern {

// The ids are in device memory; torch has checked them before the call.
template <class Args>
void launch_on_gpu(const char* op, ModelPath (*path)(const Args&, int),
                   int (*kernel)(const Args&, int, void*), size_t (*workspace)(const Args&, int),
                   Args& a, const Place& place) {
  require(path(a, place.index) != ModelPath::none,
          std::string(op) + ": no kernel holds this model in a multiprocessor's shared memory");
  launch_cuda(op, kernel, workspace, a, place);
}

}  // namespace mlpkern
