#include "binding/tensor/new_tensor.h"

#include <vector>

#include "binding/tensor/exchange.h"
#include "binding/tensor/memory.h"
#include "binding/tensor/tensor.h"

namespace mlpkern {
namespace {

// A tensor in one allocation: this header, shape and strides, then the aligned data.
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

// torch.empty and the arguments it is called with. The references are kept for good.
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

void load_torch_empty() { torch = new TorchEmpty; }

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

}  // namespace mlpkern
