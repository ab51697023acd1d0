// cross_entropy on a CPU: log-sum-exp forward, softmax - target backward (see kernels.h).
//
// The forward keeps for the backward the maximum of a row and the logarithm of its sum of
// exponentials apart: their rounded sum would lose the low bits of the logarithm where all logits
// of a row share a large offset.
//
// The batch is cut into pieces of rows that do not depend on the number of threads; their losses
// are added in order, in float64.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx2 -march=haswell -c csrc/cpu/cross_entropy.cpp
#include <type_traits>

#include "cpu/cross_entropy/gradient.h"
#include "cpu/cross_entropy/loss.h"

namespace mlpkern::cpu::MLPKERN_ISA {

size_t cross_entropy_forward_workspace(const CrossEntropyForward& args) {
  return ceil_div(args.N, rows_per_piece(args)) * sizeof(PieceSums);
}

int64_t cross_entropy_forward(const CrossEntropyForward& args) {
  return for_dtype(args.dtype, [&](auto* element) {
    return forward<std::remove_pointer_t<decltype(element)>>(args);
  });
}

size_t cross_entropy_backward_workspace(const CrossEntropyBackward&) { return 0; }

int64_t cross_entropy_backward(const CrossEntropyBackward& args) {
  return for_dtype(args.dtype, [&](auto* element) {
    return backward<std::remove_pointer_t<decltype(element)>>(args);
  });
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
