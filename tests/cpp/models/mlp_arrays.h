// Models and examples for train_steps and evaluate, in guarded arrays with gaps.
#pragma once

#include <memory>
#include <vector>

#include "mlp_reference.h"
#include "testing.h"

namespace mlpkern::testing {

// The tensors of M models, with gaps of `gap` elements between the models of a tensor. The gaps
// hold NaN and must not change.
class ModelArrays {
 public:
  ModelArrays(DType dtype, const MLPSizes& sizes, int64_t M, int64_t gap);
  void randomize();  // of the size that layers are usually initialized with
  void zero();
  void set(int64_t tensor, int64_t model, int64_t i, double value);
  void save();  // the values that restore() copies back
  void restore();

  double get(int64_t tensor, int64_t model, int64_t i) const;
  std::vector<double> values(int64_t tensor, int64_t model) const;
  std::vector<std::vector<double>> model(int64_t model) const;
  std::vector<double> all() const;  // of all models and tensors
  bool gaps_untouched() const;
  std::vector<Buffer*> buffers();
  MLP mlp() const;

  void* const* pointers() const { return pointers_.data(); }
  const int64_t* strides() const { return strides_.data(); }
  const MLPSizes& sizes() const { return sizes_; }

 private:
  const DType dtype_;
  const MLPSizes sizes_;
  const int64_t M_;
  std::vector<std::unique_ptr<Values>> tensors_;
  std::vector<void*> pointers_;
  std::vector<int64_t> strides_;
  std::vector<std::vector<unsigned char>> saved_;
};

// Rows of ids and targets. The elements between them hold -1, or 255 in uint8, which a kernel must
// not read as an id.
class ExampleArrays {
 public:
  ExampleArrays(const MLPSizes& sizes, int64_t rows, IndexType input_type, IndexType target_type,
                int64_t row_stride, int64_t col_stride, int64_t target_stride);
  void set_input(int64_t row, int64_t t, int64_t id);
  void set_target(int64_t row, int64_t target);
  std::vector<int64_t> ids(int64_t row) const;  // (T,)
  int64_t target(int64_t row) const;
  Examples examples();

 private:
  const int64_t T_, rows_, row_stride_, col_stride_, target_stride_;
  Ids inputs_, targets_;
};

}  // namespace mlpkern::testing
