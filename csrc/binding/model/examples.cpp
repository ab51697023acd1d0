#include "binding/model/examples.h"

#include <string>

#include "binding/bad_id.h"
#include "binding/id_range.h"

namespace mlpkern {

Examples describe_examples(const Tensor& inputs, const Tensor& targets) {
  inputs.require_ndim(2, 2);
  targets.require_ndim(1, 1);
  targets.require_size(0, inputs.size(0));
  Examples e;
  e.input_type = inputs.index_type();
  e.target_type = targets.index_type();
  e.rows = inputs.size(0);
  e.inputs = inputs.data();
  e.input_row_stride = inputs.stride(0);
  e.input_col_stride = inputs.stride(1);
  e.targets = targets.data();
  e.target_stride = targets.stride(0);
  return e;
}

void require_in_range(const char* op, const char* name, const Tensor& t, int64_t limit,
                      const char* noun, int64_t equal_axes) {
  int64_t sizes[3] = {1, 1, 1}, strides[3] = {0, 0, 0};
  for (int64_t axis = 0; axis < t.ndim(); ++axis) {
    sizes[3 - t.ndim() + axis] = t.size(axis);
    strides[3 - t.ndim() + axis] = t.stride(axis);
  }
  for (int64_t axis = 0; axis < equal_axes; ++axis) sizes[axis] = 1;
  const int64_t flat = first_out_of_range(t.index_type(), t.data(), sizes, strides, limit);
  if (flat < 0) return;
  const int64_t at[3] = {flat / (sizes[1] * sizes[2]), flat / sizes[2] % sizes[1], flat % sizes[2]};
  std::string position;
  int64_t offset = 0;
  for (int64_t axis = 3 - t.ndim() + equal_axes; axis < 3; ++axis)
    position += (position.empty() ? "[" : ", ") + std::to_string(at[axis]);
  for (int axis = 0; axis < 3; ++axis) offset += at[axis] * strides[axis];
  throw_out_of_range(op, name, position + "]", read_id(t.index_type(), t.data(), offset), noun,
                     limit);
}

bool examples_in_range(const TrainSteps& a) {
  const Examples& e = a.examples;
  for (int64_t m = 0; m < (a.batch_model_stride == 0 ? 1 : a.model.M); ++m)
    for (int64_t i = 0; i < a.S * a.N; ++i) {
      const int64_t row = read_id(
          a.batch_type, a.batches,
          m * a.batch_model_stride + i / a.N * a.batch_step_stride + i % a.N * a.batch_row_stride);
      for (int64_t t = 0; t < a.model.T; ++t) {
        const int64_t id =
            read_id(e.input_type, e.inputs, row * e.input_row_stride + t * e.input_col_stride);
        if (id < 0 || id >= a.model.V) return false;
      }
      const int64_t target = read_id(e.target_type, e.targets, row * e.target_stride);
      if (target < 0 || target >= a.model.C) return false;
    }
  return true;
}

}  // namespace mlpkern
