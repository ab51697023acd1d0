#include "binding/tensor/tensor.h"

#include <string>

#include "binding/tensor/exchange.h"

namespace mlpkern {
namespace {

std::string shape_text(const DLTensor& t) {
  std::string text = "(";
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (i) text += ", ";
    text += std::to_string(t.shape[i]);
  }
  return text + (t.ndim == 1 ? ",)" : ")");
}

std::string dtype_text(DLDataType d) {
  const char* kind = d.code == kDLInt      ? "int"
                     : d.code == kDLUInt   ? "uint"
                     : d.code == kDLFloat  ? "float"
                     : d.code == kDLBfloat ? "bfloat"
                     : d.code == kDLBool   ? "bool"
                                           : "unsupported type of bits ";
  return kind + std::to_string(d.bits);
}

std::string prefix(ArgumentName where) { return std::string(where.op) + ": " + where.name + " "; }

[[noreturn]] void throw_not_plain(ArgumentName where, py::handle object) {
  throw py::type_error(prefix(where) + "must be a real, dense CPU tensor, got " +
                       Py_TYPE(object.ptr())->tp_name +
                       " without CPU memory (fake, meta, sparse or other device)");
}

std::string text_of(const Place& place) {
  if (place.is_cpu()) return "cpu";
  return place.type == Place::kCUDA ? "cuda:" + std::to_string(place.index) : "another device";
}

}  // namespace

Tensor::Tensor(py::handle object, ArgumentName where) : where_(where), source_(object) {
  require_tensor();
  take(object);
  if (view_.device.device_type != Place::kCPU) throw_not_plain(where_, object);
}

Tensor::Tensor(py::handle object, ArgumentName where, Place& place)
    : where_(where), source_(object) {
  require_tensor();
  take(object);
  const Place here = {view_.device.device_type, view_.device.device_id};
  if (here.type != Place::kCPU && here.type != Place::kCUDA) throw_not_plain(where_, object);
  if (place.type == Place::kNowhere) place = here;
  if (place == here) return;
  throw py::value_error(prefix(where_) + "must be on " + text_of(place) +
                        " like the other tensors, got " + text_of(here));
}

void Tensor::require_tensor() const {
  if (PyObject_TypeCheck(source_.ptr(), tensor_type)) return;
  throw py::type_error(prefix(where_) + "must be a torch.Tensor, got " +
                       Py_TYPE(source_.ptr())->tp_name);
}

void Tensor::take(py::handle object) {
  // A fake tensor would give a null pointer, and a warning about the access to its memory.
  const bool subclass = Py_TYPE(object.ptr()) != tensor_type;
  if (subclass && py::hasattr(object, "fake_mode")) throw_not_plain(where_, object);
  int status;
  try {
    status = exchange->dltensor_from_py_object_no_sync(object.ptr(), &view_);
  } catch (...) {  // for tensors without storage, torch throws through its C function
    status = -1;
  }
  if (status != 0) {
    PyErr_Clear();
    throw_not_plain(where_, object);
  }
  if (!view_.data && numel() > 0) throw_not_plain(where_, object);
}

int64_t Tensor::numel() const {
  int64_t count = 1;
  for (int32_t i = 0; i < view_.ndim; ++i) count *= view_.shape[i];
  return count;
}

DType Tensor::dtype() const {
  const DLDataType d = view_.dtype;
  if (d.lanes == 1) {
    if (d.code == kDLFloat && d.bits == 32) return DType::f32;
    if (d.code == kDLFloat && d.bits == 64) return DType::f64;
    if (d.code == kDLBfloat && d.bits == 16) return DType::bf16;
    if (d.code == kDLFloat && d.bits == 16) return DType::f16;
  }
  throw py::type_error(prefix(where_) + "must be float32, float64, bfloat16 or float16, got " +
                       dtype_text(d));
}

IndexType Tensor::index_type() const {
  const DLDataType d = view_.dtype;
  if (d.lanes == 1) {
    if (d.code == kDLUInt && d.bits == 8) return IndexType::u8;
    if (d.code == kDLInt && d.bits == 16) return IndexType::i16;
    if (d.code == kDLInt && d.bits == 32) return IndexType::i32;
    if (d.code == kDLInt && d.bits == 64) return IndexType::i64;
  }
  throw py::type_error(prefix(where_) + "must be uint8, int16, int32 or int64, got " +
                       dtype_text(d));
}

bool Tensor::is_floating() const {
  return view_.dtype.code == kDLFloat || view_.dtype.code == kDLBfloat;
}

bool Tensor::collapses(int64_t inner, bool adjacent) {
  if (adjacent && view_.ndim > 0 && size(-1) > 1 && stride(-1) != 1) return false;
  const int64_t outer = view_.ndim - inner;
  row_stride_ = 0;
  int64_t expected = -1;  // the stride of the next outer axis
  for (int64_t axis = outer; axis-- > 0;) {
    if (view_.shape[axis] == 1) continue;
    if (expected < 0)
      row_stride_ = view_.strides[axis];
    else if (view_.strides[axis] != expected)
      return false;
    expected = view_.strides[axis] * view_.shape[axis];
  }
  return true;
}

void Tensor::collapse(int64_t inner, bool adjacent) {
  if (numel() == 0 || collapses(inner, adjacent)) return;
  owner_ = py::reinterpret_borrow<py::object>(source_).attr("contiguous")();
  take(owner_);
  collapses(inner, adjacent);
}

void Tensor::require_size(int64_t axis, int64_t expected) const {
  if (size(axis) == expected) return;
  throw py::value_error(prefix(where_) + "must have size " + std::to_string(expected) +
                        " along axis " + std::to_string(axis) + ", got shape " + shape_text(view_));
}

void Tensor::require_ndim(int64_t least, int64_t most) const {
  if (view_.ndim >= least && view_.ndim <= most) return;
  throw py::value_error(prefix(where_) + "must have " + std::to_string(least) +
                        (least == most ? "" : " or more") + " axes, got shape " +
                        shape_text(view_));
}

void Tensor::require_dtype(DType expected) const {
  if (dtype() == expected) return;
  throw py::type_error(prefix(where_) + "must have the dtype of the other arguments, got " +
                       dtype_text(view_.dtype));
}

}  // namespace mlpkern
