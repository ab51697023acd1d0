// Torch tensors as plain pointers, sizes and strides, through the DLPack exchange API of
// torch.Tensor. No torch header: one build serves every torch from 2.11 on.
#pragma once

#include <pybind11/pybind11.h>

#include "binding/tensor/dlpack.h"
#include "binding/tensor/place.h"
#include "kernels.h"

namespace mlpkern {

namespace py = pybind11;

// The function and the argument, for error messages.
struct ArgumentName {
  const char* op;
  const char* name;
};

// A borrowed view of an argument. Becomes a contiguous copy, which it owns, only where a kernel
// needs adjacent elements and the tensor has none.
class Tensor {
 public:
  // Throws TypeError unless the object is a strided tensor in CPU memory. With a place: TypeError
  // unless it is one in memory of a CPU or a CUDA device, ValueError if that is another place.
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

  // Makes the elements of the last axis adjacent (if `adjacent`) and gives all axes before the last
  // `inner` one common stride; copies the tensor only if its layout does not allow this.
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

inline DType acc_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace mlpkern
