// What the tests of cross_entropy of csrc/cuda share: a problem with its launches, and its check in
// every order of threads and blocks.
#pragma once

#include <cuda_runtime.h>

#include "cuda/library.h"
#include "ops/cross_entropy_problem.h"
#include "orders.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

struct Problem : CrossEntropyProblem {
  using CrossEntropyProblem::CrossEntropyProblem;
  int forward() {
    return launch(cuda::cross_entropy_forward, cuda::cross_entropy_forward_workspace,
                  forward_args());
  }
  int backward() {
    return launch(cuda::cross_entropy_backward, cuda::cross_entropy_backward_workspace,
                  backward_args());
  }
};

constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};
constexpr Reduction kReductions[] = {Reduction::none, Reduction::mean, Reduction::sum};

void check(DType dtype, const Setting& setting) {
  Problem problem(dtype, setting);
  run_in_every_order(
      "forward " + label(dtype, setting),
      {&problem.loss.buffer, &problem.lse.buffer, &problem.total_weight.buffer},
      [&] { return problem.forward(); }, [&] { problem.check_forward(); });
  run_in_every_order(
      "backward " + label(dtype, setting), {&problem.dinput.values.buffer},
      [&] { return problem.backward(); }, [&] { problem.check_backward(); });
}

}  // namespace
