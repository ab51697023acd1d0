#include "binding/model/model_tensors.h"

namespace mlpkern {
namespace {

bool contiguous(const Tensor& t) {
  int64_t expected = 1;
  for (int64_t axis = t.ndim(); axis-- > 1; expected *= t.size(axis))
    if (t.size(axis) != 1 && t.stride(axis) != expected) return false;
  return true;
}

}  // namespace

void require(bool holds, const std::string& message) {
  if (!holds) throw py::value_error(message);
}

ModelTensors::ModelTensors(const char* op, const char* name, const py::sequence& list, Place& place)
    : op_(op), name_(name) {
  for (size_t i = 0; i < list.size(); ++i) {
    objects_.push_back(list[i]);
    tensors_.emplace_back(objects_.back(), ArgumentName{op, name}, place);
    const Tensor& t = tensors_.back();
    pointers_.push_back(t.mutable_data());
    strides_.push_back(t.ndim() > 0 ? t.stride(0) : 0);
  }
}

void ModelTensors::describe(MLP& model, std::vector<int64_t>& hidden, int64_t T) const {
  const auto count = static_cast<int64_t>(tensors_.size());
  require(count >= 5 && count % 2 == 1, where() + "must be an embedding and at least two layers");
  model.L = (count - 3) / 2;
  require(count <= kMostTensors, where() + "may have at most 63 hidden layers");
  tensors_[0].require_ndim(3, 3);
  model.dtype = tensors_[0].dtype();
  require(model.dtype == DType::f32 || model.dtype == DType::f64,
          where() + "must be float32 or float64");
  model.M = tensors_[0].size(0);
  model.V = tensors_[0].size(1);
  model.T = T;
  model.D = tensors_[0].size(2);
  int64_t in = T * model.D;
  for (int64_t l = 0; l <= model.L; ++l) {
    const Tensor &weight = at(1 + 2 * l), &bias = at(2 + 2 * l);
    weight.require_ndim(3, 3);
    bias.require_ndim(2, 2);
    const int64_t out = weight.size(1);
    weight.require_size(2, in);
    bias.require_size(1, out);
    if (l < model.L)
      hidden.push_back(out);
    else
      model.C = out;
    in = out;
  }
  require(model.V > 0 && model.D > 0 && T > 0 && model.C > 0, where() + "must not be empty");
  for (int64_t width : hidden) require(width > 0, where() + "must not be empty");
  for (const Tensor& t : tensors_) {
    t.require_dtype(model.dtype);
    t.require_size(0, model.M);
    require(contiguous(t), where() + "must be contiguous within each model");
  }
  model.hidden = hidden.data();
  model.parameters = pointers_.data();
  model.model_strides = strides_.data();
}

void ModelTensors::require_like(const ModelTensors& parameters) const {
  require(tensors_.size() == parameters.tensors_.size(),
          where() + "must have as many tensors as parameters");
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const Tensor &mine = tensors_[i], &theirs = parameters.tensors_[i];
    mine.require_ndim(theirs.ndim(), theirs.ndim());
    for (int64_t axis = 0; axis < theirs.ndim(); ++axis) mine.require_size(axis, theirs.size(axis));
    mine.require_dtype(theirs.dtype());
    require(contiguous(mine), where() + "must be contiguous within each model");
  }
}

}  // namespace mlpkern
