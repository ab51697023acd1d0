// The pybind11 module mlpkern._C. The functions of an op stand in <op>_binding.cpp: each checks
// memory safety, allocates outputs and scratch, and calls one launcher. No arithmetic here.
// User-facing checks stand in mlpkern/ops; these only keep a direct call from reading or writing
// outside its arrays.
#include "binding/bindings.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "binding/id_range.h"
#include "cpu/threads/parallel.h"

namespace mlpkern {

IdShape shape_of(const Tensor& t) {
  IdShape shape = {};
  shape.ndim = static_cast<int32_t>(std::min<int64_t>(t.ndim(), kShapeAxes));
  const int64_t folded = t.ndim() - shape.ndim;
  for (int64_t axis = 0; axis < shape.ndim; ++axis) shape.size[axis] = t.size(axis + folded);
  for (int64_t axis = 0; axis < folded; ++axis) shape.size[0] *= t.size(axis);
  return shape;
}

std::string position_text(const IdShape& shape, int64_t flat) {
  std::string text;
  for (int32_t axis = shape.ndim; axis-- > 0; flat /= shape.size[axis])
    text = std::to_string(flat % shape.size[axis]) + (text.empty() ? "" : ", ") + text;
  return text.empty() ? text : "[" + text + "]";
}

int64_t id_at(const Tensor& t, int64_t flat) {
  int64_t offset = 0;
  for (int64_t axis = t.ndim(); axis-- > 0; flat /= t.size(axis))
    offset += flat % t.size(axis) * t.stride(axis);
  return read_id(t.index_type(), t.data(), offset);
}

void throw_bad_id(const char* op, const std::string& position, int64_t value, int64_t V) {
  throw py::index_error(std::string(op) + ": input" + position + " is " + std::to_string(value) +
                        ", expected 0 <= id < " + std::to_string(V));
}

void throw_bad_id(const char* op, const Tensor& input, int64_t flat, int64_t V) {
  throw_bad_id(op, position_text(shape_of(input), flat), id_at(input, flat), V);
}

void throw_bad_target(const std::string& position, int64_t value, int64_t C, int64_t ignored) {
  throw py::index_error("cross_entropy: target" + position + " is " + std::to_string(value) +
                        ", expected 0 <= target < " + std::to_string(C) + " (or ignore_index " +
                        std::to_string(ignored) + ")");
}

namespace {

py::dict cache_info() {
  const memory::Info info = memory::info();
  py::dict result;
  result["kept_bytes"] = info.kept_bytes;
  result["limit_bytes"] = info.limit_bytes;
  result["hits"] = info.hits;
  result["misses"] = info.misses;
  return result;
}

// What new_tensor does on a GPU, wherever the tensor is: for tests without one.
py::object torch_output_like(py::handle tensor) {
  Place place;
  const Tensor like(tensor, {"torch_output_like", "tensor"}, place);
  void* data;
  return new_torch_tensor(place, like.dtype(), like.shape(), like.ndim(), &data);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of mlpkern. Use them through mlpkern.functional.";
  load_exchange_api();

  bind_embedding_gather(m);
  bind_linear_tanh(m);
  bind_embedding_linear_tanh(m);
  bind_cross_entropy(m);
  bind_train_steps(m);
  bind_cuda_library(m);

  m.def("isa", cpu::isa, "Instruction set in use: avx512, avx2 or baseline.");
  m.def("isa_error", cpu::isa_error, "Why MLPKERN_ISA cannot be obeyed, or None.");
  m.def("isas_available", cpu::isas_available, "Instruction sets this machine can run.");
  m.def("num_threads", cpu::max_threads, "Threads a parallel loop started here would use.");
  m.def("limit_threads", cpu::limit_threads, py::arg("count"),
        "Bounds the threads of loops started by this thread, 0 for no bound; returns the old one.");
  m.def("parallel_backend", cpu::parallel_source, "torch, openmp or serial.");
  m.def("torch_output_like", torch_output_like, py::arg("tensor"),
        "A tensor of this shape, dtype and device, made as the outputs of a GPU are.");
  m.def("empty_cache", memory::empty, "Frees the memory kept for reuse.");
  m.def("cache_info", cache_info, "Bytes kept for reuse, their limit, hits and misses.");
  m.def("set_cache_limit", memory::set_limit, py::arg("bytes"),
        "Sets the most bytes kept for reuse; 0 keeps none.");
}

}  // namespace mlpkern
