// The plain loop that train_steps and evaluate are compared with: one model, row after row, in any
// precision. In long double it is the reference; in the dtype of the kernels it shows which error
// to expect of them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace mlpkern::testing {

// Sizes of the model of kernels.h and of its tensors, in the order of MLP::parameters.
struct MLPSizes {
  int64_t V, T, D, C;
  std::vector<int64_t> hidden;

  int64_t layers() const { return static_cast<int64_t>(hidden.size()) + 1; }  // with the output
  int64_t inputs(int64_t layer) const { return layer == 0 ? T * D : hidden[layer - 1]; }
  int64_t outputs(int64_t layer) const { return layer + 1 == layers() ? C : hidden[layer]; }
  int64_t tensors() const { return 1 + 2 * layers(); }
  int64_t count(int64_t tensor) const;  // of its elements
  int64_t multiply_adds() const {       // of the forward pass of a row
    int64_t sum = 0;
    for (int64_t l = 0; l < layers(); ++l) sum += inputs(l) * outputs(l);
    return sum;
  }
};

// How one model is trained.
struct Recipe {
  Optimizer optimizer = Optimizer::sgd;
  bool nesterov = false;
  double momentum = 0, weight_decay = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double max_grad_norm;  // infinity: no clipping
  double label_smoothing = 0, input_dropout = 0, hidden_dropout = 0;
  int64_t seed = 0, stream = 0;
  std::vector<int64_t> frozen;  // tensors that do not change, nor their moments

  Recipe();
  bool freezes(size_t tensor) const;
  bool has_first() const { return optimizer == Optimizer::adamw || momentum != 0; }
  bool has_second() const { return optimizer == Optimizer::adamw; }
};

// Random123's philox4x32-10.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

template <class Real>
class PlainMLP {
 public:
  using Tensors = std::vector<std::vector<Real>>;
  struct RowResult {
    Real loss;
    int64_t best;  // the first class with the largest logit
    Real lead;     // its distance to the second largest logit
  };

  PlainMLP(const MLPSizes& sizes, const std::vector<std::vector<double>>& parameters);

  // One step, number `step` from 0, on rows of ids (N, T). Returns the loss before the update,
  // which is skipped if the loss is not finite.
  Real train_step(const std::vector<int64_t>& ids, const std::vector<int64_t>& targets,
                  const Recipe& recipe, double rate, int64_t step);
  RowResult evaluate_row(const int64_t* ids, int64_t target) const;

  Tensors parameters, first, second;  // the moments begin as zeros

 private:
  struct Activations {
    Tensors read, kept;  // [l]: the input of layer l; its dropout factors
    Tensors tanh;        // [l]: of layer l, before dropout
    std::vector<Real> logits;
  };

  Tensors zeros() const;
  Activations forward(const int64_t* ids, const Recipe& recipe, int64_t n, int64_t step) const;
  void backward(const int64_t* ids, const Activations& at, std::vector<Real> dz,
                Tensors& gradients) const;
  void clip(const Recipe& recipe, Tensors& gradients) const;
  void update(const Tensors& gradients, const Recipe& recipe, Real rate, int64_t step);

  MLPSizes sizes_;
};

extern template class PlainMLP<float>;
extern template class PlainMLP<double>;
extern template class PlainMLP<long double>;

}  // namespace mlpkern::testing
