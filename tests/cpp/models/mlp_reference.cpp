#include "mlp_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mlpkern::testing {
namespace {

// The factor of a unit in row n of the batch: 0, or 1 / (1 - p).
double dropout_factor(double p, const Recipe& recipe, int64_t layer, int64_t unit, int64_t n,
                      int64_t step) {
  if (p == 0) return 1;
  const auto seed = static_cast<uint64_t>(recipe.seed);
  const auto words =
      philox4x32({static_cast<uint32_t>(unit / 4), static_cast<uint32_t>(n),
                  static_cast<uint32_t>(step), static_cast<uint32_t>(recipe.stream * 256 + layer)},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return words[unit % 4] >= std::nearbyint(std::ldexp(p, 32)) ? 1 / (1 - p) : 0;
}

template <class Real>
Real log_sum_exp(const std::vector<Real>& logits) {
  Real largest = logits[0], sum = 0;
  for (Real z : logits) largest = std::fmax(largest, z);
  for (Real z : logits) sum += std::exp(z - largest);
  return largest + std::log(sum);
}

}  // namespace

int64_t MLPSizes::count(int64_t tensor) const {
  if (tensor == 0) return V * D;
  const int64_t layer = (tensor - 1) / 2;
  return tensor % 2 == 1 ? outputs(layer) * inputs(layer) : outputs(layer);
}

Recipe::Recipe() : max_grad_norm(std::numeric_limits<double>::infinity()) {}

bool Recipe::freezes(size_t tensor) const {
  return std::count(frozen.begin(), frozen.end(), static_cast<int64_t>(tensor)) > 0;
}

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c[0], b = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(a)};
    k = {k[0] + 0x9E3779B9, k[1] + 0xBB67AE85};
  }
  return c;
}

template <class Real>
PlainMLP<Real>::PlainMLP(const MLPSizes& sizes, const std::vector<std::vector<double>>& initial)
    : sizes_(sizes) {
  for (const auto& tensor : initial) parameters.emplace_back(tensor.begin(), tensor.end());
  first = second = zeros();
}

template <class Real>
typename PlainMLP<Real>::Tensors PlainMLP<Real>::zeros() const {
  Tensors all;
  for (int64_t i = 0; i < sizes_.tensors(); ++i) all.emplace_back(sizes_.count(i));
  return all;
}

template <class Real>
typename PlainMLP<Real>::Activations PlainMLP<Real>::forward(const int64_t* ids,
                                                             const Recipe& recipe, int64_t n,
                                                             int64_t step) const {
  Activations at;
  std::vector<Real> x;
  for (int64_t t = 0; t < sizes_.T; ++t)
    for (int64_t d = 0; d < sizes_.D; ++d) x.push_back(parameters[0][ids[t] * sizes_.D + d]);
  for (int64_t l = 0; l < sizes_.layers(); ++l) {
    const double p = l == 0 ? recipe.input_dropout : recipe.hidden_dropout;
    at.kept.emplace_back();
    for (size_t i = 0; i < x.size(); ++i) {
      at.kept[l].push_back(static_cast<Real>(dropout_factor(p, recipe, l, i, n, step)));
      x[i] *= at.kept[l][i];
    }
    at.read.push_back(x);
    const auto &weight = parameters[1 + 2 * l], &bias = parameters[2 + 2 * l];
    std::vector<Real> z(bias);
    for (size_t o = 0; o < z.size(); ++o)
      for (size_t i = 0; i < x.size(); ++i) z[o] += weight[o * x.size() + i] * x[i];
    if (l + 1 == sizes_.layers()) {
      at.logits = z;
      break;
    }
    for (Real& value : z) value = std::tanh(value);
    at.tanh.push_back(z);
    x = z;
  }
  return at;
}

// Adds the gradients of one row, given that of its logits.
template <class Real>
void PlainMLP<Real>::backward(const int64_t* ids, const Activations& at, std::vector<Real> dz,
                              Tensors& gradients) const {
  for (int64_t l = sizes_.layers() - 1; l >= 0; --l) {
    const auto& weight = parameters[1 + 2 * l];
    const std::vector<Real>& x = at.read[l];
    std::vector<Real> dx(x.size());
    for (size_t o = 0; o < dz.size(); ++o) {
      gradients[2 + 2 * l][o] += dz[o];
      for (size_t i = 0; i < x.size(); ++i) {
        gradients[1 + 2 * l][o * x.size() + i] += dz[o] * x[i];
        dx[i] += dz[o] * weight[o * x.size() + i];
      }
    }
    for (size_t i = 0; i < dx.size(); ++i) {
      dx[i] *= at.kept[l][i];
      if (l > 0) dx[i] *= 1 - at.tanh[l - 1][i] * at.tanh[l - 1][i];
    }
    dz = dx;
  }
  for (int64_t t = 0; t < sizes_.T; ++t)
    for (int64_t d = 0; d < sizes_.D; ++d)
      gradients[0][ids[t] * sizes_.D + d] += dz[t * sizes_.D + d];
}

// torch.nn.utils.clip_grad_norm_ over the trained tensors
template <class Real>
void PlainMLP<Real>::clip(const Recipe& recipe, Tensors& gradients) const {
  if (std::isinf(recipe.max_grad_norm)) return;
  Real sum = 0;
  for (size_t i = 0; i < gradients.size(); ++i)
    for (Real g : gradients[i])
      if (!recipe.freezes(i)) sum += g * g;
  const Real scale =
      static_cast<Real>(recipe.max_grad_norm) / (std::sqrt(sum) + static_cast<Real>(1e-6));
  for (auto& tensor : gradients)
    for (Real& g : tensor) g *= std::fmin(scale, Real{1});
}

// torch.optim.SGD, and torch.optim.AdamW with no decay of the biases.
template <class Real>
void PlainMLP<Real>::update(const Tensors& gradients, const Recipe& r, Real rate, int64_t step) {
  const auto decay = static_cast<Real>(r.weight_decay), momentum = static_cast<Real>(r.momentum);
  const auto beta1 = static_cast<Real>(r.beta1), beta2 = static_cast<Real>(r.beta2);
  const auto t = static_cast<Real>(step + 1);
  for (size_t i = 0; i < gradients.size(); ++i)
    for (size_t j = 0; j < gradients[i].size() && !r.freezes(i); ++j) {
      Real &w = parameters[i][j], &m = first[i][j], &v = second[i][j], g = gradients[i][j];
      if (r.optimizer == Optimizer::adamw) {
        const bool is_bias = i > 0 && i % 2 == 0;
        if (!is_bias) w -= rate * decay * w;
        m = beta1 * m + (1 - beta1) * g;
        v = beta2 * v + (1 - beta2) * g * g;
        const Real mean = m / (1 - std::pow(beta1, t)), square = v / (1 - std::pow(beta2, t));
        w -= rate * mean / (std::sqrt(square) + static_cast<Real>(r.eps));
        continue;
      }
      g += decay * w;
      m = momentum * m + g;
      w -= rate * (r.nesterov ? g + momentum * m : m);
    }
}

template <class Real>
Real PlainMLP<Real>::train_step(const std::vector<int64_t>& ids,
                                const std::vector<int64_t>& targets, const Recipe& recipe,
                                double rate, int64_t step) {
  const auto smoothing = static_cast<Real>(recipe.label_smoothing);
  const auto C = static_cast<Real>(sizes_.C), N = static_cast<Real>(targets.size());
  Tensors gradients = zeros();
  Real loss = 0;
  for (size_t n = 0; n < targets.size(); ++n) {
    const int64_t* ids_n = ids.data() + n * sizes_.T;
    const Activations at = forward(ids_n, recipe, n, step);
    const Real log_sum = log_sum_exp(at.logits);
    std::vector<Real> dz;
    for (int64_t c = 0; c < sizes_.C; ++c) {
      const Real wanted = (c == targets[n] ? 1 - smoothing : 0) + smoothing / C;
      if (wanted > 0) loss += wanted * (log_sum - at.logits[c]);
      dz.push_back((std::exp(at.logits[c] - log_sum) - wanted) / N);
    }
    backward(ids_n, at, dz, gradients);
  }
  loss /= N;
  if (!std::isfinite(loss)) return loss;
  clip(recipe, gradients);
  update(gradients, recipe, static_cast<Real>(rate), step);
  return loss;
}

template <class Real>
typename PlainMLP<Real>::RowResult PlainMLP<Real>::evaluate_row(const int64_t* ids,
                                                                int64_t target) const {
  const std::vector<Real> z = forward(ids, Recipe(), 0, 0).logits;
  RowResult row{log_sum_exp(z) - z[target], 0, std::numeric_limits<Real>::infinity()};
  for (int64_t c = 1; c < sizes_.C; ++c)
    if (z[c] > z[row.best]) row.best = c;
  for (int64_t c = 0; c < sizes_.C; ++c)
    if (c != row.best) row.lead = std::fmin(row.lead, z[row.best] - z[c]);
  return row;
}

template class PlainMLP<float>;
template class PlainMLP<double>;
template class PlainMLP<long double>;

}  // namespace mlpkern::testing
