#include "binding/tensor/tensor.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "binding/tensor/memory.h"

namespace mlpkern {
namespace {

const DLPackExchangeAPI* exchange = nullptr;
PyTypeObject* tensor_type = nullptr;

// What torch.empty is called with. References kept for good.
struct TorchEmpty {
  PyObject* function;
  PyObject* names;  // of its last two arguments
  PyObject* dtypes[4];
  PyObject* uint8;
  PyObject* cpu;
  std::vector<PyObject*> gpus;

  TorchEmpty() {
    const py::module_ torch = py::module_::import("torch");
    const auto take = [&](const char* name) {
      return py::object(torch.attr(name)).release().ptr();
    };
    function = take("empty");
    names = py::make_tuple("dtype", "device").release().ptr();
    dtypes[static_cast<size_t>(DType::f32)] = take("float32");
    dtypes[static_cast<size_t>(DType::f64)] = take("float64");
    dtypes[static_cast<size_t>(DType::bf16)] = take("bfloat16");
    dtypes[static_cast<size_t>(DType::f16)] = take("float16");
    uint8 = take("uint8");
    cpu = torch.attr("device")("cpu").release().ptr();
  }

  PyObject* device(const Place& place) {
    if (place.is_cpu()) return cpu;
    const auto index = static_cast<size_t>(place.index);
    if (index >= gpus.size()) gpus.resize(index + 1);
    if (!gpus[index])
      gpus[index] = py::module_::import("torch").attr("device")("cuda", index).release().ptr();
    return gpus[index];
  }
};
TorchEmpty* torch = nullptr;

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

// Everything one tensor needs, in one allocation: this, shape and strides, then the aligned data.
struct Owned {
  DLManagedTensorVersioned managed;
  size_t bytes;
  int64_t* sizes() { return reinterpret_cast<int64_t*>(this + 1); }
};

DLDataType dl_type(DType dtype) {
  const uint8_t bits = dtype == DType::f64 ? 64 : dtype == DType::f32 ? 32 : 16;
  return {dtype == DType::bf16 ? kDLBfloat : kDLFloat, bits, 1};
}

size_t header_bytes(int64_t ndim) {
  const size_t bytes = sizeof(Owned) + 2 * static_cast<size_t>(ndim) * sizeof(int64_t);
  return (bytes + 63) / 64 * 64;
}

}  // namespace

void load_exchange_api() {
  py::object type = py::module_::import("torch").attr("Tensor");
  const char* needs = "mlpkern needs torch >= 2.11 (torch.Tensor.__dlpack_c_exchange_api__)";
  if (!py::hasattr(type, "__dlpack_c_exchange_api__")) throw py::import_error(needs);
  py::object capsule = type.attr("__dlpack_c_exchange_api__");
  auto* api = static_cast<const DLPackExchangeAPI*>(
      PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!api) throw py::error_already_set();
  while (api && api->version.major != 1) api = api->prev_api;
  if (!api || !api->dltensor_from_py_object_no_sync) throw py::import_error(needs);
  exchange = api;
  tensor_type = reinterpret_cast<PyTypeObject*>(type.release().ptr());  // kept for good
  torch = new TorchEmpty;
}

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
  // A fake tensor would hand over a null pointer, with a warning that its memory was asked for.
  const bool subclass = Py_TYPE(object.ptr()) != tensor_type;
  if (subclass && py::hasattr(object, "fake_mode")) throw_not_plain(where_, object);
  int status;
  try {
    status = exchange->dltensor_from_py_object_no_sync(object.ptr(), &view_);
  } catch (...) {  // torch throws through its C function for tensors without storage
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
  int64_t expected = -1;  // of the next axis outwards
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

py::object new_tensor(DType dtype, const int64_t* shape, int64_t ndim, void** data) {
  const int64_t element = dl_type(dtype).bits / 8;
  int64_t count = 1;
  for (int64_t i = 0; i < ndim; ++i) count *= shape[i];
  const size_t header = header_bytes(ndim);
  const size_t bytes = header + static_cast<size_t>(count * element);
  auto* owned = static_cast<Owned*>(memory::acquire(bytes));
  owned->bytes = bytes;
  int64_t* sizes = owned->sizes();
  int64_t* strides = sizes + ndim;
  for (int64_t i = ndim, step = 1; i-- > 0; step *= shape[i]) {
    sizes[i] = shape[i];
    strides[i] = step;
  }
  *data = reinterpret_cast<char*>(owned) + header;
  DLManagedTensorVersioned& m = owned->managed;
  m.version = {1, 0};
  m.manager_ctx = owned;
  m.flags = 0;
  m.deleter = [](DLManagedTensorVersioned* self) {
    auto* block = static_cast<Owned*>(self->manager_ctx);
    memory::release(block, block->bytes);
  };
  m.dl_tensor.data = *data;
  m.dl_tensor.device = {Place::kCPU, 0};
  m.dl_tensor.ndim = static_cast<int32_t>(ndim);
  m.dl_tensor.dtype = dl_type(dtype);
  m.dl_tensor.shape = sizes;
  m.dl_tensor.strides = strides;
  m.dl_tensor.byte_offset = 0;
  void* object = nullptr;
  if (exchange->managed_tensor_to_py_object_no_sync(&m, &object) != 0) {
    m.deleter(&m);
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
}

namespace {

// torch.empty(shape, dtype=dtype, device=place)
py::object torch_empty(const Place& place, PyObject* dtype, const int64_t* shape, int64_t ndim,
                       void** data) {
  const py::tuple sizes(ndim);
  for (int64_t i = 0; i < ndim; ++i)
    PyTuple_SET_ITEM(sizes.ptr(), i, PyLong_FromLongLong(shape[i]));
  PyObject* const arguments[] = {sizes.ptr(), dtype, torch->device(place)};
  auto made = py::reinterpret_steal<py::object>(
      PyObject_Vectorcall(torch->function, arguments, 1, torch->names));
  if (!made) throw py::error_already_set();
  Place expected = place;
  *data = Tensor(made, {"torch.empty", "result"}, expected).mutable_data();
  return made;
}

}  // namespace

py::object new_tensor(const Place& place, DType dtype, const int64_t* shape, int64_t ndim,
                      void** data) {
  if (place.is_cpu()) return new_tensor(dtype, shape, ndim, data);
  return new_torch_tensor(place, dtype, shape, ndim, data);
}

py::object new_torch_tensor(const Place& place, DType dtype, const int64_t* shape, int64_t ndim,
                            void** data) {
  return torch_empty(place, torch->dtypes[static_cast<size_t>(dtype)], shape, ndim, data);
}

py::object new_bytes(const Place& place, size_t bytes, void** data) {
  const auto count = static_cast<int64_t>(bytes);
  return torch_empty(place, torch->uint8, &count, 1, data);
}

void* current_stream(const Place& place) {
  void* stream = nullptr;
  if (exchange->current_work_stream(place.type, place.index, &stream) != 0)
    throw py::error_already_set();
  return stream;
}

}  // namespace mlpkern
