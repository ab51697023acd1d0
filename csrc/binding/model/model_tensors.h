// The tensors of M models as train_steps and evaluate take them: parameters, first and second
// moments.
#pragma once

#include <string>
#include <vector>

#include "binding/tensor/tensor.h"

namespace mlpkern {

constexpr int64_t kMostTensors = 2 * 64 + 1;  // of a model with 63 hidden layers

// ValueError with this message unless it holds.
void require(bool holds, const std::string& message);

// In the order of kernels.h, each (M, ...) and contiguous within a model.
class ModelTensors {
 public:
  ModelTensors(const char* op, const char* name, const py::sequence& list, Place& place);

  // Checks that together they are M models and fills the sizes of `model`, which points to
  // `hidden`.
  void describe(MLP& model, std::vector<int64_t>& hidden, int64_t T) const;

  // Checks that they have the shapes and the dtype of the parameters.
  void require_like(const ModelTensors& parameters) const;

  bool empty() const { return tensors_.empty(); }
  int64_t size() const { return static_cast<int64_t>(tensors_.size()); }
  void* const* pointers() const { return pointers_.data(); }
  const int64_t* strides() const { return strides_.data(); }

 private:
  const Tensor& at(int64_t i) const { return tensors_[static_cast<size_t>(i)]; }
  std::string where() const { return std::string(op_) + ": " + name_ + " "; }

  const char* op_;
  const char* name_;
  std::vector<py::object> objects_;
  std::vector<Tensor> tensors_;
  std::vector<void*> pointers_;
  std::vector<int64_t> strides_;
};

}  // namespace mlpkern
