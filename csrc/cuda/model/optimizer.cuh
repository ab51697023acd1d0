// One optimizer step on one parameter: torch.optim.SGD and torch.optim.AdamW. What depends only
// on the step is computed once for all parameters, in float64.
#pragma once

#include <math.h>

#include "kernels.h"

namespace mlpkern::cuda {

enum class Rule { sgd, momentum, nesterov, adamw };

// The options of a call.
struct RuleConstants {
  Rule rule;
  float momentum;  // sgd: momentum; adamw: 1 - beta1
  float beta2, one_minus_beta2, eps;
};

// The constants of one step of one model.
struct alignas(16) StepConstants {
  float rate;             // sgd: -lr; adamw: -lr / (1 - beta1^t)
  float decay;            // sgd: weight_decay, added to the gradient; adamw: 1 - lr * weight_decay
  float root_correction;  // adamw: 1 / sqrt(1 - beta2^t)
  float unused;
};

inline RuleConstants rule_constants(const TrainSteps& a) {
  RuleConstants r{};
  if (a.optimizer == Optimizer::adamw) {
    r.rule = Rule::adamw;
    r.momentum = static_cast<float>(1 - a.beta1);
    r.beta2 = static_cast<float>(a.beta2);
    r.one_minus_beta2 = static_cast<float>(1 - a.beta2);
    r.eps = static_cast<float>(a.eps);
    return r;
  }
  r.rule = a.momentum == 0 ? Rule::sgd : a.nesterov ? Rule::nesterov : Rule::momentum;
  r.momentum = static_cast<float>(a.momentum);
  return r;
}

// The step number t counts from 1.
__device__ __forceinline__ StepConstants step_constants(Rule rule, double beta1, double beta2,
                                                        double lr, double weight_decay, int64_t t) {
  if (rule != Rule::adamw)
    return {static_cast<float>(-lr), static_cast<float>(weight_decay), 0.0f, 0.0f};
  const double steps = static_cast<double>(t);
  return {static_cast<float>(-lr / (1 - pow(beta1, steps))),
          static_cast<float>(1 - lr * weight_decay),
          static_cast<float>(1 / sqrt(1 - pow(beta2, steps))), 0.0f};
}

template <Rule rule>
constexpr bool kHasFirst = rule != Rule::sgd;
template <Rule rule>
constexpr bool kHasSecond = rule == Rule::adamw;

// The new value of w for the gradient g; first and second are updated where the rule has them.
// AdamW decays embedding and weights (`decays`), not biases; SGD decays all.
template <Rule rule>
__device__ __forceinline__ float updated(const RuleConstants& r, const StepConstants& s, float w,
                                         float g, float& first, float& second, bool decays) {
  if constexpr (rule == Rule::adamw) {
    if (decays) w *= s.decay;
    first += (g - first) * r.momentum;
    second = second * r.beta2 + g * g * r.one_minus_beta2;
    return w + s.rate * (first / (sqrtf(second) * s.root_correction + r.eps));
  } else {
    if (s.decay != 0.0f) g += s.decay * w;  // 0 * infinity is not 0
    if constexpr (rule == Rule::sgd) return w + s.rate * g;
    first = r.momentum * first + g;
    if constexpr (rule == Rule::nesterov) return w + s.rate * (g + r.momentum * first);
    return w + s.rate * first;
  }
}

// body(Type) with the rule as a compile-time constant.
template <Rule value>
struct RuleIs {
  static constexpr Rule rule = value;
};
template <class Body>
__device__ __forceinline__ void for_rule(Rule rule, const Body& body) {
  if (rule == Rule::sgd)
    body(RuleIs<Rule::sgd>{});
  else if (rule == Rule::momentum)
    body(RuleIs<Rule::momentum>{});
  else if (rule == Rule::nesterov)
    body(RuleIs<Rule::nesterov>{});
  else
    body(RuleIs<Rule::adamw>{});
}

}  // namespace mlpkern::cuda
