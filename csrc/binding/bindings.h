// What the binding files share, and for each file the function that adds its part to the module.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "binding/cuda_library.h"
#include "binding/tensor/exchange.h"
#include "binding/tensor/memory.h"
#include "binding/tensor/new_tensor.h"
#include "binding/tensor/tensor.h"
#include "kernels.h"

namespace mlpkern {

void bind_embedding_gather(py::module_& m);
void bind_linear_tanh(py::module_& m);
void bind_embedding_linear_tanh(py::module_& m);
void bind_cross_entropy(py::module_& m);
void bind_train_steps(py::module_& m);
void bind_evaluate(py::module_& m);
void bind_gpu_kernels(py::module_& m);  // which one train_steps and evaluate launch

// Above this, releasing the interpreter lock costs less than what other Python threads gain.
constexpr int64_t kReleaseGilWork = 1 << 20;  // multiply-adds or elements moved

template <class Args>
int64_t launch(int64_t (*kernel)(const Args&), size_t (*workspace)(const Args&), Args& args,
               int64_t work) {
  const memory::Scratch scratch(workspace(args));
  args.workspace = scratch.get();
  if (work < kReleaseGilWork) return kernel(args);
  py::gil_scoped_release release;
  return kernel(args);
}
#define MLPKERN_LAUNCH(name, args, work) launch(cpu::name, cpu::name##_workspace, args, work)

// The same on the device of `place`. On a GPU it returns -1: bad ids are recorded by the device.
#define MLPKERN_LAUNCH_ON(place, op, name, args, work)                                        \
  ((place).is_cpu()                                                                           \
       ? MLPKERN_LAUNCH(name, args, work)                                                     \
       : (launch_cuda(op, cuda_library().name, cuda_library().name##_workspace, args, place), \
          int64_t{-1}))

inline std::vector<int64_t> leading_shape(const Tensor& t, int64_t last) {
  std::vector<int64_t> shape(t.shape(), t.shape() + t.ndim());
  shape.back() = last;
  return shape;
}

inline int64_t rows_of(const Tensor& t) {
  int64_t rows = 1;
  for (int64_t axis = 0; axis + 1 < t.ndim(); ++axis) rows *= t.size(axis);
  return rows;
}

constexpr int64_t kAnyRank = 64;

// Fills the ids, of shape (..., T), as N rows of T.
template <class Args>
void set_ids(Args& a, Tensor& input) {
  input.require_ndim(1, kAnyRank);
  input.collapse(1, false);
  a.index_type = input.index_type();
  a.N = rows_of(input);
  a.T = input.size(-1);
  a.input = input.data();
  a.input_row_stride = input.row_stride();
  a.input_col_stride = input.stride(-1);
}

// Fills a.bias. The tensor must outlive the launch.
template <class Args>
void set_bias(Args& a, Tensor& bias) {
  bias.require_ndim(1, 1);
  bias.require_size(0, a.H);
  bias.require_dtype(a.dtype);
  bias.collapse(1, true);
  a.bias = bias.data();
}

// Fills doutput and output, both of shape (..., H).
template <class Args>
void set_outputs(Args& a, const Tensor& input, Tensor& doutput, Tensor& output) {
  for (Tensor* t : {&doutput, &output}) {
    t->require_ndim(input.ndim(), input.ndim());
    for (int64_t axis = 0; axis + 1 < input.ndim(); ++axis) t->require_size(axis, input.size(axis));
    t->require_size(-1, a.H);
    t->require_dtype(a.dtype);
    t->collapse(1, true);
  }
  a.doutput = doutput.data();
  a.doutput_row_stride = doutput.row_stride();
  a.output = output.data();
  a.output_row_stride = output.row_stride();
}

}  // namespace mlpkern
