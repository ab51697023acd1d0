// mlpkern/_cuda.so as the bindings see it: loaded on first use, then a table of launchers.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "binding/tensor/place.h"
#include "binding/tensor/tensor.h"
#include "cuda/library.h"

namespace mlpkern {

void bind_cuda_library(py::module_& m);

// The loaded library; RuntimeError where there is none.
const cuda::Library& cuda_library();

// From now on check_errors() asks this device too.
void mark_used(const Place& place);

[[noreturn]] void throw_cuda_error(const char* op, int error);

// Runs a launcher on the current stream of the device, with scratch from torch's allocator: its
// blocks return to the stream they were taken on, so it may be given back at once.
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
