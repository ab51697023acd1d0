// The pybind11 module mlpkern._C: each function checks memory safety, allocates outputs and
// scratch, and calls one launcher. No arithmetic here. User-facing checks stand in mlpkern/ops;
// those below only keep a direct call from reading or writing outside its arrays.
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "bindings.h"
#include "cpu/parallel.h"
#include "id_range.h"
#include "kernels.h"
#include "memory.h"
#include "tensor.h"

namespace mlpkern {
namespace {

int64_t index_at(const Tensor& t, int64_t flat, std::string* position) {
  std::vector<int64_t> coordinates(static_cast<size_t>(t.ndim()));
  int64_t offset = 0;
  for (int64_t axis = t.ndim(); axis-- > 0; flat /= t.size(axis)) {
    coordinates[static_cast<size_t>(axis)] = flat % t.size(axis);
    offset += coordinates[static_cast<size_t>(axis)] * t.stride(axis);
  }
  for (int64_t axis = 0; axis < t.ndim(); ++axis)
    *position += (axis ? ", " : "[") + std::to_string(coordinates[static_cast<size_t>(axis)]);
  if (t.ndim()) *position += "]";
  return read_id(t.index_type(), t.data(), offset);
}

}  // namespace

void throw_bad_id(const char* op, const Tensor& input, int64_t flat, int64_t V) {
  std::string position;
  const int64_t value = index_at(input, flat, &position);
  throw py::index_error(std::string(op) + ": input" + position + " is " + std::to_string(value) +
                        ", expected 0 <= id < " + std::to_string(V));
}

namespace {

[[noreturn]] void throw_bad_target(const Tensor& target, int64_t row, int64_t C, int64_t ignored) {
  std::string position;
  const int64_t value = index_at(target, row, &position);
  throw py::index_error("cross_entropy: target" + position + " is " + std::to_string(value) +
                        ", expected 0 <= target < " + std::to_string(C) + " (or ignore_index " +
                        std::to_string(ignored) + ")");
}

// ------------------------------------------------------------------------- embedding_gather

py::object embedding_gather_forward(py::handle input_, py::handle weight_) {
  const char* op = "embedding_gather";
  Tensor input(input_, {op, "input"}), weight(weight_, {op, "weight"});
  EmbeddingGatherForward a;
  set_ids(a, input);
  weight.require_ndim(2, 2);
  weight.collapse(1, true);
  a.dtype = weight.dtype();
  a.V = weight.size(0);
  a.D = weight.size(1);
  a.weight = weight.data();
  a.weight_row_stride = weight.row_stride();
  const std::vector<int64_t> shape = leading_shape(input, a.T * a.D);
  py::object output = new_tensor(a.dtype, shape.data(), input.ndim(), &a.output);
  const int64_t bad = MLPKERN_LAUNCH(embedding_gather_forward, a, a.N * a.T * a.D);
  if (bad >= 0) throw_bad_id(op, input, bad, a.V);
  return output;
}

py::object embedding_gather_backward(py::handle doutput_, py::handle input_, int64_t num_embeddings,
                                     int64_t padding_idx) {
  const char* op = "embedding_gather";
  Tensor doutput(doutput_, {op, "grad_output"}), input(input_, {op, "input"});
  EmbeddingGatherBackward a;
  set_ids(a, input);
  doutput.require_ndim(input.ndim(), input.ndim());
  for (int64_t axis = 0; axis + 1 < input.ndim(); ++axis)
    doutput.require_size(axis, input.size(axis));
  doutput.collapse(1, true);
  a.dtype = doutput.dtype();
  a.V = num_embeddings;
  a.D = a.T > 0 ? doutput.size(-1) / a.T : 0;
  if (a.T > 0) doutput.require_size(-1, a.T * a.D);
  if (a.V < 0) throw py::value_error("embedding_gather: num_embeddings must not be negative");
  a.doutput = doutput.data();
  a.doutput_row_stride = doutput.row_stride();
  a.padding_idx = padding_idx;
  py::object dweight = new_tensor(a.dtype, {a.V, a.D}, &a.dweight);
  const int64_t bad = MLPKERN_LAUNCH(embedding_gather_backward, a, (a.N * a.T + a.V) * a.D);
  if (bad >= 0) throw_bad_id(op, input, bad, a.V);
  return dweight;
}

// ------------------------------------------------------------------------------ linear_tanh

// Fills what forward and backward share: input (..., K) as N rows, weight (H, K).
template <class Args>
void set_linear(Args& a, Tensor& input, Tensor& weight) {
  input.require_ndim(1, kAnyRank);
  weight.require_ndim(2, 2);
  input.collapse(1, true);
  weight.collapse(1, true);
  a.dtype = input.dtype();
  weight.require_dtype(a.dtype);
  a.N = rows_of(input);
  a.K = input.size(-1);
  a.H = weight.size(0);
  weight.require_size(1, a.K);
  a.input = input.data();
  a.input_row_stride = input.row_stride();
  a.weight = weight.data();
  a.weight_row_stride = weight.row_stride();
}

py::object linear_tanh_forward(py::handle input_, py::handle weight_, py::handle bias_) {
  const char* op = "linear_tanh";
  Tensor input(input_, {op, "input"}), weight(weight_, {op, "weight"});
  LinearTanhForward a;
  set_linear(a, input, weight);
  a.bias = nullptr;
  Tensor bias = bias_.is_none() ? weight : Tensor(bias_, {op, "bias"});
  if (!bias_.is_none()) set_bias(a, bias);
  const std::vector<int64_t> shape = leading_shape(input, a.H);
  py::object output = new_tensor(a.dtype, shape.data(), input.ndim(), &a.output);
  MLPKERN_LAUNCH(linear_tanh_forward, a, a.N * a.K * a.H);
  return output;
}

py::tuple linear_tanh_backward(py::handle doutput_, py::handle input_, py::handle weight_,
                               py::handle output_, bool need_input, bool need_weight,
                               bool need_bias) {
  const char* op = "linear_tanh";
  Tensor doutput(doutput_, {op, "grad_output"}), input(input_, {op, "input"});
  Tensor weight(weight_, {op, "weight"}), output(output_, {op, "output"});
  LinearTanhBackward a;
  set_linear(a, input, weight);
  set_outputs(a, input, doutput, output);
  a.dinput = a.dweight = a.dbias = nullptr;
  py::object dinput = py::none(), dweight = py::none(), dbias = py::none();
  if (need_input) dinput = new_tensor(a.dtype, input.shape(), input.ndim(), &a.dinput);
  if (need_weight) dweight = new_tensor(a.dtype, {a.H, a.K}, &a.dweight);
  if (need_bias) dbias = new_tensor(a.dtype, {a.H}, &a.dbias);
  MLPKERN_LAUNCH(linear_tanh_backward, a, a.N * a.K * a.H);
  return py::make_tuple(std::move(dinput), std::move(dweight), std::move(dbias));
}

// ---------------------------------------------------------------------------- cross_entropy

Reduction reduction_of(int64_t value) {
  if (value < 0 || value > 2)
    throw py::value_error("cross_entropy: reduction must be 0, 1 or 2, got " +
                          std::to_string(value));
  return static_cast<Reduction>(value);
}

// Fills what forward and backward share: logits (N, C), target, class weights, options.
template <class Args>
void set_classes(Args& a, Tensor& input, Tensor& target, Tensor* weight, int64_t ignore_index,
                 int64_t reduction, double label_smoothing) {
  input.require_ndim(2, 2);
  input.collapse(1, true);
  a.dtype = input.dtype();
  a.N = input.size(0);
  a.C = input.size(1);
  a.input = input.data();
  a.input_row_stride = input.row_stride();
  a.target_is_probability = target.is_floating();
  a.index_type = IndexType::i64;
  target.require_ndim(a.target_is_probability ? 2 : 1, a.target_is_probability ? 2 : 1);
  target.require_size(0, a.N);
  if (a.target_is_probability) {
    target.require_dtype(a.dtype);
    target.require_size(1, a.C);
    target.collapse(1, true);
    a.target_row_stride = target.row_stride();
  } else {
    a.index_type = target.index_type();
    a.target_row_stride = target.stride(0);
  }
  a.target = target.data();
  a.weight = nullptr;
  if (weight) {
    weight->require_ndim(1, 1);
    weight->require_size(0, a.C);
    weight->require_dtype(a.dtype);
    weight->collapse(1, true);
    a.weight = weight->data();
  }
  a.ignore_index = ignore_index;
  a.reduction = reduction_of(reduction);
  a.label_smoothing = label_smoothing;
}

py::tuple cross_entropy_forward(py::handle input_, py::handle target_, py::handle weight_,
                                int64_t ignore_index, int64_t reduction, double label_smoothing) {
  const char* op = "cross_entropy";
  Tensor input(input_, {op, "input"}), target(target_, {op, "target"});
  Tensor weight = weight_.is_none() ? input : Tensor(weight_, {op, "weight"});
  CrossEntropyForward a;
  set_classes(a, input, target, weight_.is_none() ? nullptr : &weight, ignore_index, reduction,
              label_smoothing);
  const DType acc = acc_dtype(a.dtype);
  py::object loss = a.reduction == Reduction::none ? new_tensor(a.dtype, {a.N}, &a.loss)
                                                   : new_tensor(a.dtype, {}, &a.loss);
  py::object lse = new_tensor(acc, {2, a.N}, &a.lse);
  py::object total_weight = new_tensor(acc, {}, &a.total_weight);
  const int64_t bad = MLPKERN_LAUNCH(cross_entropy_forward, a, a.N * a.C);
  if (bad >= 0) throw_bad_target(target, bad, a.C, ignore_index);
  return py::make_tuple(std::move(loss), std::move(lse), std::move(total_weight));
}

py::object cross_entropy_backward(py::handle dloss_, py::handle input_, py::handle target_,
                                  py::handle weight_, py::handle lse_, py::handle total_weight_,
                                  int64_t ignore_index, int64_t reduction, double label_smoothing) {
  const char* op = "cross_entropy";
  Tensor dloss(dloss_, {op, "grad_output"});
  Tensor input(input_, {op, "input"}), target(target_, {op, "target"});
  Tensor lse(lse_, {op, "lse"}), total_weight(total_weight_, {op, "total_weight"});
  Tensor weight = weight_.is_none() ? input : Tensor(weight_, {op, "weight"});
  CrossEntropyBackward a;
  set_classes(a, input, target, weight_.is_none() ? nullptr : &weight, ignore_index, reduction,
              label_smoothing);
  dloss.require_dtype(a.dtype);
  a.dloss_stride = 0;
  if (a.reduction == Reduction::none) {
    dloss.require_ndim(1, 1);
    dloss.require_size(0, a.N);
    a.dloss_stride = dloss.stride(0);
  } else {
    dloss.require_ndim(0, 0);
  }
  lse.require_ndim(2, 2);
  lse.require_size(0, 2);
  lse.require_size(1, a.N);
  lse.require_dtype(acc_dtype(a.dtype));
  lse.collapse(2, true);
  if (a.N > 0 && lse.stride(0) != a.N)
    throw py::value_error("cross_entropy: lse must be contiguous");
  total_weight.require_ndim(0, 0);
  total_weight.require_dtype(acc_dtype(a.dtype));
  a.dloss = dloss.data();
  a.lse = lse.data();
  a.total_weight = total_weight.data();
  py::object dinput = new_tensor(a.dtype, {a.N, a.C}, &a.dinput);
  const int64_t bad = MLPKERN_LAUNCH(cross_entropy_backward, a, a.N * a.C);
  if (bad >= 0) throw_bad_target(target, bad, a.C, ignore_index);
  return dinput;
}

py::dict cache_info() {
  const memory::Info info = memory::info();
  py::dict result;
  result["kept_bytes"] = info.kept_bytes;
  result["limit_bytes"] = info.limit_bytes;
  result["hits"] = info.hits;
  result["misses"] = info.misses;
  return result;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled CPU kernels of mlpkern. Use them through mlpkern.functional.";
  load_exchange_api();
  if (cpu::isa_error())
    throw py::import_error(std::string(cpu::isa_error()) + "; available: " + cpu::isas_available());

  m.def("embedding_gather_forward", embedding_gather_forward, py::arg("input"), py::arg("weight"));
  m.def("embedding_gather_backward", embedding_gather_backward, py::arg("grad_output"),
        py::arg("input"), py::arg("num_embeddings"), py::arg("padding_idx") = -1);
  m.def("linear_tanh_forward", linear_tanh_forward, py::arg("input"), py::arg("weight"),
        py::arg("bias") = py::none());
  m.def("linear_tanh_backward", linear_tanh_backward, py::arg("grad_output"), py::arg("input"),
        py::arg("weight"), py::arg("output"), py::arg("need_input") = true,
        py::arg("need_weight") = true, py::arg("need_bias") = true);
  bind_embedding_linear_tanh(m);
  m.def("cross_entropy_forward", cross_entropy_forward, py::arg("input"), py::arg("target"),
        py::arg("weight"), py::arg("ignore_index"), py::arg("reduction"),
        py::arg("label_smoothing"));
  m.def("cross_entropy_backward", cross_entropy_backward, py::arg("grad_output"), py::arg("input"),
        py::arg("target"), py::arg("weight"), py::arg("lse"), py::arg("total_weight"),
        py::arg("ignore_index"), py::arg("reduction"), py::arg("label_smoothing"));

  bind_train_steps(m);

  m.def("isa", cpu::isa, "Instruction set in use: avx512, avx2 or baseline.");
  m.def("isas_available", cpu::isas_available, "Instruction sets this machine can run.");
  m.def("num_threads", cpu::max_threads, "Threads a parallel loop started here would use.");
  m.def("parallel_backend", cpu::parallel_source, "torch, openmp or serial.");
  m.def("empty_cache", memory::empty, "Frees the memory kept for reuse.");
  m.def("cache_info", cache_info, "Bytes kept for reuse, their limit, hits and misses.");
  m.def("set_cache_limit", memory::set_limit, py::arg("bytes"),
        "Sets the most bytes kept for reuse; 0 keeps none.");
}

}  // namespace mlpkern
