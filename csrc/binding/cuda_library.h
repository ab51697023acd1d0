// mlpkern/_cuda.so: loaded on first use, then a table of launchers.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "binding/tensor/exchange.h"
#include "binding/tensor/new_tensor.h"
#include "cuda/library.h"

namespace mlpkern {

void bind_cuda_library(py::module_& m);

// The loaded library; RuntimeError where there is none.
const cuda::Library& cuda_library();

// check_errors() asks this device from now on.
void mark_used(const Place& place);

[[noreturn]] void throw_cuda_error(const char* op, int error);

// Runs a launcher on the current stream of the device, with scratch from torch's allocator. The
// scratch is freed at once: the allocator reuses a block only on the same stream.
template <class Args>
void launch_cuda(const char* op, int (*kernel)(const Args&, int, void*),
                 size_t (*workspace)(const Args&, int), Args& args, const Place& place) {
  mark_used(place);
  py::object scratch;
  args.workspace = nullptr;
  const size_t bytes = workspace(args, place.index);
  if (bytes > 0) scratch = new_bytes(place, bytes, &args.workspace);
  const int error = kernel(args, place.index, current_stream(place));
  if (error != 0) throw_cuda_error(op, error);
}

}  // namespace mlpkern
