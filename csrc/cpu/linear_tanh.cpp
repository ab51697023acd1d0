// linear_tanh on a CPU: output = tanh(input weight^T + bias) and its gradients (see kernels.h), by
// blocks of rows, as layer/linear_tanh_forward.h and linear_tanh_backward.h describe.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx2 -march=haswell -c csrc/cpu/linear_tanh.cpp
#include "cpu/layer/linear_tanh_backward.h"
#include "cpu/layer/linear_tanh_forward.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

template <class T>
int64_t forward(const LinearTanhForward& a) {
  const T* input = static_cast<const T*>(a.input);
  linear_tanh_forward_by_blocks<T>(a, [&](acc_t<T>* rows, int64_t row_step, int64_t first,
                                          int64_t count) {
    pack_rows(rows, row_step, input + first * a.input_row_stride, a.input_row_stride, count, a.K);
    return true;
  });
  return -1;
}

template <class T>
int64_t backward(const LinearTanhBackward& a) {
  const T* input = static_cast<const T*>(a.input);
  T* dinput = static_cast<T*>(a.dinput);
  LinearTanhGradients<T> gradients(a);
  gradients.add_rows(
      0, a.N,
      [&](int64_t n, int64_t, int64_t) { return InputBlock<T>{input + n * a.input_row_stride}; },
      a.input_row_stride, [&](int64_t n) { return dinput + n * a.K; });
  gradients.finish();
  return -1;
}

}  // namespace

size_t linear_tanh_forward_workspace(const LinearTanhForward& args) { return workspace(args); }

int64_t linear_tanh_forward(const LinearTanhForward& args) {
  if (args.N == 0 || args.H == 0) return -1;
  return for_dtype(args.dtype, [&](auto* element) {
    return forward<std::remove_pointer_t<decltype(element)>>(args);
  });
}

size_t linear_tanh_backward_workspace(const LinearTanhBackward& args) { return workspace(args); }

int64_t linear_tanh_backward(const LinearTanhBackward& args) {
  return for_dtype(args.dtype, [&](auto* element) {
    return backward<std::remove_pointer_t<decltype(element)>>(args);
  });
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
