// One optimizer step on vectors of parameters that are in registers: torch.optim.SGD and
// torch.optim.AdamW, with the constants of a step computed once in float64.
#pragma once

#include <cmath>

#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

enum class Rule { sgd, momentum, nesterov, adamw };

// The step number counts from 1.
template <class A>
struct StepConstants {
  vec_t<A> rate;      // sgd: -lr, without momentum times scale; adamw: -lr / (1 - beta1^t)
  vec_t<A> decay;     // adamw: 1 - lr * weight_decay; sgd: weight_decay, without momentum times -lr
  ints_t<A> decays;   // sgd: all bits set, or none where weight_decay is 0: 0 * inf is not 0
  vec_t<A> scale;     // of the gradient: the factor of clipping, or 1
  vec_t<A> momentum;  // sgd: momentum; adamw: 1 - beta1
  vec_t<A> beta2, one_minus_beta2, root_correction, eps;
};

template <class A>
StepConstants<A> step_constants(const TrainSteps& a, int64_t model, double lr, int64_t step,
                                double scale) {
  const auto all = [](double value) { return splat(static_cast<A>(value)); };
  const double weight_decay = a.weight_decay[model];
  StepConstants<A> c = {};
  c.scale = all(scale);
  if (a.optimizer == Optimizer::sgd) {
    const bool plain = a.momentum == 0;
    c.rate = all(plain ? -lr * scale : -lr);
    c.decay = all(plain ? -lr * weight_decay : weight_decay);
    c.decays = c.decay != vec_t<A>{};
    c.momentum = all(a.momentum);
    return c;
  }
  const double t = static_cast<double>(step);
  c.rate = all(-lr / (1 - std::pow(a.beta1, t)));
  c.decay = all(1 - lr * weight_decay);
  c.momentum = all(1 - a.beta1);
  c.beta2 = all(a.beta2);
  c.one_minus_beta2 = all(1 - a.beta2);
  c.root_correction = all(1 / std::sqrt(1 - std::pow(a.beta2, t)));
  c.eps = all(a.eps);
  return c;
}

MLPKERN_INLINE vec_t<double> square_root(vec_t<double> x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

// The new value of w for the gradient g; first and second are updated where the rule has them.
// decay is that of the constants, or the value that means no decay.
template <Rule rule, class A>
MLPKERN_INLINE vec_t<A> updated(const StepConstants<A>& c, vec_t<A> w, vec_t<A> g, vec_t<A>& first,
                                vec_t<A>& second, vec_t<A> decay) {
  const auto decaying = [&] { return (vec_t<A>)((ints_t<A>)w & c.decays); };
  if constexpr (rule == Rule::sgd) return (w + decay * decaying()) + c.rate * g;
  g *= c.scale;
  if constexpr (rule == Rule::adamw) {
    w *= decay;
    first += (g - first) * c.momentum;
    second = second * c.beta2 + g * g * c.one_minus_beta2;
    return w + c.rate * (first / (square_root(second) * c.root_correction + c.eps));
  }
  g += decay * decaying();
  first = c.momentum * first + g;
  if constexpr (rule == Rule::nesterov) return w + c.rate * (g + c.momentum * first);
  return w + c.rate * first;
}

inline Rule rule_of(const TrainSteps& a) {
  if (a.optimizer == Optimizer::adamw) return Rule::adamw;
  if (a.momentum == 0) return Rule::sgd;
  return a.nesterov ? Rule::nesterov : Rule::momentum;
}

// Calls body with the rule as a compile-time constant.
template <class Body>
MLPKERN_INLINE void for_rule(Rule rule, const Body& body) {
  switch (rule) {
    case Rule::sgd:
      return body(std::integral_constant<Rule, Rule::sgd>());
    case Rule::momentum:
      return body(std::integral_constant<Rule, Rule::momentum>());
    case Rule::nesterov:
      return body(std::integral_constant<Rule, Rule::nesterov>());
    case Rule::adamw:
      return body(std::integral_constant<Rule, Rule::adamw>());
  }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
