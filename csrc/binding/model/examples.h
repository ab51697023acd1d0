// The examples of train_steps and evaluate, and whether their ids and targets are in range.
#pragma once

#include "binding/tensor/tensor.h"

namespace mlpkern {

Examples describe_examples(const Tensor& inputs, const Tensor& targets);

// IndexError unless all values of a tensor of up to three axes are in [0, limit). The first
// `equal_axes` have size 1 or repeat the same values, and the message leaves them out.
void require_in_range(const char* op, const char* name, const Tensor& t, int64_t limit,
                      const char* noun, int64_t equal_axes = 0);

// Whether all examples in the batches have ids and targets in range.
bool examples_in_range(const TrainSteps& a);

}  // namespace mlpkern
