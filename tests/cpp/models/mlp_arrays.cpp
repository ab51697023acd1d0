#include "mlp_arrays.h"

#include <algorithm>
#include <cmath>

namespace mlpkern::testing {
namespace {

// The largest value below `limit` that the type can hold, plus one.
int64_t bound_of(IndexType type, int64_t limit) {
  return type == IndexType::u8 && limit > 256 ? 256 : limit;
}

int64_t pick(int64_t bound) { return static_cast<int64_t>(uniform() * bound); }

}  // namespace

ModelArrays::ModelArrays(DType dtype, const MLPSizes& sizes, int64_t M, int64_t gap)
    : dtype_(dtype), sizes_(sizes), M_(M) {
  for (int64_t i = 0; i < sizes.tensors(); ++i) {
    const int64_t stride = sizes.count(i) + gap;
    tensors_.push_back(std::make_unique<Values>(dtype, M * stride - gap));
    pointers_.push_back(tensors_.back()->data());
    strides_.push_back(stride);
  }
}

void ModelArrays::set(int64_t tensor, int64_t model, int64_t i, double value) {
  tensors_[tensor]->set(model * strides_[tensor] + i, value);
}

double ModelArrays::get(int64_t tensor, int64_t model, int64_t i) const {
  return tensors_[tensor]->get(model * strides_[tensor] + i);
}

void ModelArrays::randomize() {
  for (int64_t tensor = 0; tensor < sizes_.tensors(); ++tensor) {
    const int64_t layer = (tensor - 1) / 2;
    const double size = tensor == 0 ? 1.5 : 2 / std::sqrt(sizes_.inputs(layer) + 1.0);
    for (int64_t m = 0; m < M_; ++m)
      for (int64_t i = 0; i < sizes_.count(tensor); ++i)
        set(tensor, m, i, size * (2 * uniform() - 1));
  }
  save();
}

void ModelArrays::zero() {
  for (int64_t tensor = 0; tensor < sizes_.tensors(); ++tensor)
    for (int64_t m = 0; m < M_; ++m)
      for (int64_t i = 0; i < sizes_.count(tensor); ++i) set(tensor, m, i, 0);
  save();
}

void ModelArrays::save() {
  saved_.clear();
  for (const auto& tensor : tensors_) {
    const auto* bytes = static_cast<const unsigned char*>(tensor->data());
    saved_.emplace_back(bytes, bytes + tensor->buffer.size());
  }
}

void ModelArrays::restore() {
  for (size_t i = 0; i < tensors_.size(); ++i)
    std::copy(saved_[i].begin(), saved_[i].end(), static_cast<unsigned char*>(tensors_[i]->data()));
}

std::vector<double> ModelArrays::values(int64_t tensor, int64_t model) const {
  std::vector<double> all;
  for (int64_t i = 0; i < sizes_.count(tensor); ++i) all.push_back(get(tensor, model, i));
  return all;
}

std::vector<std::vector<double>> ModelArrays::model(int64_t model) const {
  std::vector<std::vector<double>> all;
  for (int64_t tensor = 0; tensor < sizes_.tensors(); ++tensor)
    all.push_back(values(tensor, model));
  return all;
}

std::vector<double> ModelArrays::all() const {
  std::vector<double> all;
  for (int64_t m = 0; m < M_; ++m)
    for (const auto& tensor : model(m)) all.insert(all.end(), tensor.begin(), tensor.end());
  return all;
}

bool ModelArrays::gaps_untouched() const {
  for (int64_t tensor = 0; tensor < sizes_.tensors(); ++tensor) {
    const size_t item = item_size(dtype_), stride = strides_[tensor] * item;
    const auto* bytes = static_cast<const unsigned char*>(tensors_[tensor]->data());
    for (size_t at = 0; at < tensors_[tensor]->buffer.size(); ++at)
      if (at % stride >= sizes_.count(tensor) * item && bytes[at] != 0xFF) return false;
  }
  return true;
}

std::vector<Buffer*> ModelArrays::buffers() {
  std::vector<Buffer*> all;
  for (const auto& tensor : tensors_) all.push_back(&tensor->buffer);
  return all;
}

MLP ModelArrays::mlp() const {
  MLP model{};
  model.dtype = dtype_;
  model.M = M_;
  model.V = sizes_.V, model.T = sizes_.T, model.D = sizes_.D, model.C = sizes_.C;
  model.L = sizes_.layers() - 1;
  model.hidden = sizes_.hidden.data();
  model.parameters = pointers();
  model.model_strides = strides();
  return model;
}

ExampleArrays::ExampleArrays(const MLPSizes& sizes, int64_t rows, IndexType input_type,
                             IndexType target_type, int64_t row_stride, int64_t col_stride,
                             int64_t target_stride)
    : T_(sizes.T),
      rows_(rows),
      row_stride_(row_stride),
      col_stride_(col_stride),
      target_stride_(target_stride),
      inputs_(input_type, rows ? (rows - 1) * row_stride + (sizes.T - 1) * col_stride + 1 : 0),
      targets_(target_type, rows ? (rows - 1) * target_stride + 1 : 0) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t t = 0; t < T_; ++t) set_input(row, t, pick(bound_of(input_type, sizes.V)));
    set_target(row, pick(bound_of(target_type, sizes.C)));
  }
}

void ExampleArrays::set_input(int64_t row, int64_t t, int64_t id) {
  inputs_.set(row * row_stride_ + t * col_stride_, id);
}

void ExampleArrays::set_target(int64_t row, int64_t target) {
  targets_.set(row * target_stride_, target);
}

std::vector<int64_t> ExampleArrays::ids(int64_t row) const {
  std::vector<int64_t> all;
  for (int64_t t = 0; t < T_; ++t) all.push_back(inputs_.get(row * row_stride_ + t * col_stride_));
  return all;
}

int64_t ExampleArrays::target(int64_t row) const { return targets_.get(row * target_stride_); }

Examples ExampleArrays::examples() {
  Examples e{};
  e.input_type = inputs_.type, e.target_type = targets_.type;
  e.rows = rows_;
  e.inputs = inputs_.data();
  e.input_row_stride = row_stride_, e.input_col_stride = col_stride_;
  e.targets = targets_.data();
  e.target_stride = target_stride_;
  return e;
}

}  // namespace mlpkern::testing
