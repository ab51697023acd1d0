// Torch tensors as plain pointers, sizes and strides, through the DLPack exchange API of
// torch.Tensor. No torch header: one build serves every torch from 2.11 on.
#pragma once

#include <pybind11/pybind11.h>

#include <initializer_list>

#include "binding/tensor/dlpack.h"
#include "binding/tensor/place.h"
#include "kernels.h"

namespace mlpkern {

namespace py = pybind11;

// What an error names: the function and the argument.
struct ArgumentName {
  const char* op;
  const char* name;
};

// A borrowed view of an argument. Converts to a contiguous copy only where a kernel needs adjacent
// elements and the tensor has none; then `owner` keeps the copy alive.
class Tensor {
 public:
  // Throws TypeError for anything but a strided tensor in CPU memory; or, given a place, for one
  // that no backend here can read, and ValueError for one that is elsewhere.
  Tensor(py::handle object, ArgumentName where);
  Tensor(py::handle object, ArgumentName where, Place& place);

  const void* data() const { return static_cast<const char*>(view_.data) + view_.byte_offset; }
  void* mutable_data() const { return const_cast<void*>(data()); }
  int64_t ndim() const { return view_.ndim; }
  int64_t size(int64_t axis) const { return view_.shape[axis < 0 ? axis + view_.ndim : axis]; }
  int64_t stride(int64_t axis) const { return view_.strides[axis < 0 ? axis + view_.ndim : axis]; }
  int64_t numel() const;
  const int64_t* shape() const { return view_.shape; }
  DLDataType raw_dtype() const { return view_.dtype; }

  DType dtype() const;           // TypeError unless a supported floating type
  IndexType index_type() const;  // TypeError unless a supported integer type
  bool is_floating() const;

  // The last axis becomes adjacent and the axes before the last `inner` collapse to one with a
  // single stride, by a contiguous copy if the layout does not already allow it.
  void collapse(int64_t inner, bool adjacent);
  int64_t row_stride() const { return row_stride_; }

  void require_size(int64_t axis, int64_t expected) const;  // ValueError
  void require_ndim(int64_t least, int64_t most) const;     // ValueError
  void require_dtype(DType expected) const;                 // TypeError

 private:
  void require_tensor() const;
  void take(py::handle object);
  bool collapses(int64_t inner, bool adjacent);

  ArgumentName where_;
  DLTensor view_;
  py::object owner_;
  py::handle source_;
  int64_t row_stride_ = 0;
};

// A new uninitialized CPU tensor whose memory comes from memory.h.
py::object new_tensor(DType dtype, const int64_t* shape, int64_t ndim, void** data);

inline py::object new_tensor(DType dtype, std::initializer_list<int64_t> shape, void** data) {
  return new_tensor(dtype, shape.begin(), static_cast<int64_t>(shape.size()), data);
}

// The same where `place` says; on a GPU, whose memory is torch's, by new_torch_tensor.
py::object new_tensor(const Place& place, DType dtype, const int64_t* shape, int64_t ndim,
                      void** data);

inline py::object new_tensor(const Place& place, DType dtype, std::initializer_list<int64_t> shape,
                             void** data) {
  return new_tensor(place, dtype, shape.begin(), static_cast<int64_t>(shape.size()), data);
}

// By torch.empty, so that the tensor is torch's own: what is made from foreign memory torch's
// allocator cannot resize, and does not know by which streams it is used (Tensor.record_stream).
// Torch's errors pass, OutOfMemoryError among them.
py::object new_torch_tensor(const Place& place, DType dtype, const int64_t* shape, int64_t ndim,
                            void** data);

// Uninitialized bytes by torch.empty, kept as long as the object.
py::object new_bytes(const Place& place, size_t bytes, void** data);

// torch's current stream of a GPU, a cudaStream_t.
void* current_stream(const Place& place);

inline DType acc_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// Finds torch's exchange API; called once at import. Throws ImportError when torch is too old.
void load_exchange_api();

}  // namespace mlpkern
