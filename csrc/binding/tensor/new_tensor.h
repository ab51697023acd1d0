// New tensors for outputs and scratch.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>

#include "binding/tensor/place.h"
#include "kernels.h"

namespace mlpkern {

namespace py = pybind11;

// Finds torch.empty; called once at import.
void load_torch_empty();

// A new uninitialized CPU tensor whose memory comes from the pool of memory.h.
py::object new_tensor(DType dtype, const int64_t* shape, int64_t ndim, void** data);

inline py::object new_tensor(DType dtype, std::initializer_list<int64_t> shape, void** data) {
  return new_tensor(dtype, shape.begin(), static_cast<int64_t>(shape.size()), data);
}

// The same on the device of `place`; on a GPU by new_torch_tensor.
py::object new_tensor(const Place& place, DType dtype, const int64_t* shape, int64_t ndim,
                      void** data);

inline py::object new_tensor(const Place& place, DType dtype, std::initializer_list<int64_t> shape,
                             void** data) {
  return new_tensor(place, dtype, shape.begin(), static_cast<int64_t>(shape.size()), data);
}

// By torch.empty, so that the memory is torch's own: torch cannot resize tensors in foreign memory,
// and its allocator does not track the streams that use them (Tensor.record_stream). Errors of
// torch such as OutOfMemoryError pass through.
py::object new_torch_tensor(const Place& place, DType dtype, const int64_t* shape, int64_t ndim,
                            void** data);

// Uninitialized bytes by torch.empty, valid as long as the returned object.
py::object new_bytes(const Place& place, size_t bytes, void** data);

}  // namespace mlpkern
