#include "train_trial.h"

#include <cmath>
#include <cstring>

namespace mlpkern::testing {
namespace {

constexpr int64_t kGap = 3;  // elements between models

int64_t input_row_stride(const Problem& p) { return p.windows ? 1 : 2 * p.sizes.T + 3; }

template <class Outcome, class Tensors>
void append(Outcome& to, const Tensors& tensors) {
  for (const auto& tensor : tensors) to.emplace_back(tensor.begin(), tensor.end());
}

}  // namespace

Trial::Trial(const Problem& problem)
    : p(problem),
      parameters(p.dtype, p.sizes, p.M, kGap),
      first(p.dtype, p.sizes, p.recipe.has_first() ? p.M : 0, p.recipe.has_first() ? 1 : 0),
      second(p.dtype, p.sizes, p.recipe.has_second() ? p.M : 0, 0),
      examples(p.sizes, p.rows, p.input_type, p.target_type, input_row_stride(p), p.windows ? 1 : 2,
               3),
      batches(p.batch_type, (p.shared_batches ? 1 : p.M) * p.S * (p.N * kBatchRowStride + 1)),
      batch_model_stride(p.shared_batches ? 0 : p.S * (p.N * kBatchRowStride + 1)),
      batch_step_stride(p.N * kBatchRowStride + 1),
      stopped(IndexType::i64, p.M),
      losses(p.dtype, p.M * p.S) {
  parameters.randomize();
  first.zero();
  second.zero();
  for (int64_t m = 0; m < (p.shared_batches ? 1 : p.M); ++m)
    for (int64_t s = 0; s < p.S; ++s)
      for (int64_t n = 0; n < p.N; ++n)
        batches.set(m * batch_model_stride + s * batch_step_stride + n * kBatchRowStride,
                    static_cast<int64_t>(uniform() * p.rows));
  for (int64_t m = 0; m < p.M; ++m) {
    for (int64_t s = 0; s < p.S; ++s) rates_.push_back(p.rate / (1 + m + 0.1 * s));
    rates_.push_back(NAN);  // between the models
    const double share = p.M == 1 ? 1 : m % 3 * 0.5;
    weight_decay_.push_back(p.recipe.weight_decay * share);
    input_dropout_.push_back(p.recipe.input_dropout * share);
    hidden_dropout_.push_back(p.recipe.hidden_dropout * (m == 1 ? 0 : 1));
    seeds_.push_back(p.recipe.seed - m * 0x123456789);
    streams_.push_back(p.recipe.stream + m);
  }
  frozen_ = std::make_unique<bool[]>(static_cast<size_t>(p.sizes.tensors()));
  for (int64_t i = 0; i < p.sizes.tensors(); ++i)
    frozen_[static_cast<size_t>(i)] = p.recipe.freezes(static_cast<size_t>(i));
  restore();
}

Recipe Trial::recipe_of(int64_t m) const {
  Recipe recipe = p.recipe;
  recipe.weight_decay = weight_decay_[m];
  recipe.input_dropout = input_dropout_[m], recipe.hidden_dropout = hidden_dropout_[m];
  recipe.seed = seeds_[m], recipe.stream = streams_[m];
  return recipe;
}

std::vector<Buffer*> Trial::outputs() {
  std::vector<Buffer*> all = {&losses.buffer, &stopped.buffer};
  for (ModelArrays* arrays : {&parameters, &first, &second})
    for (Buffer* buffer : arrays->buffers()) all.push_back(buffer);
  return all;
}

void Trial::poison_outputs() {
  for (Buffer* buffer : outputs()) buffer->poison();
}

void Trial::restore() {
  for (ModelArrays* arrays : {&parameters, &first, &second}) arrays->restore();
  for (int64_t m = 0; m < p.M; ++m) stopped.set(m, -1);
}

void Trial::break_at(int64_t at, bool infinite) {
  const int64_t row = p.rows - 1, id = p.sizes.V - 1, target = p.sizes.C - 1;
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t t = 0; t < p.sizes.T; ++t)
      if (examples.ids(r)[t] == id) examples.set_input(r, t, 0);
    if (examples.target(r) == target) examples.set_target(r, 0);
  }
  examples.set_input(row, 0, id);
  examples.set_target(row, target);
  for (int64_t i = 0; i < batches.count; ++i)
    if (batches.get(i) == row) batches.set(i, 0);
  batches.set(batch_model_stride + at * batch_step_stride, row);
  if (infinite)
    parameters.set(p.sizes.tensors() - 1, 1, target, -INFINITY);
  else
    parameters.set(0, 1, id * p.sizes.D, NAN);
  parameters.save();
}

TrainSteps Trial::arguments(int64_t begin, int64_t count, void* losses_of_part) {
  TrainSteps a{};
  a.model = parameters.mlp();
  a.frozen = p.recipe.frozen.empty() ? nullptr : frozen_.get();
  a.tf32 = p.tf32;
  if (p.recipe.has_first()) a.first = first.pointers(), a.first_strides = first.strides();
  if (p.recipe.has_second()) a.second = second.pointers(), a.second_strides = second.strides();
  a.examples = examples.examples();
  a.batch_type = p.batch_type;
  a.S = count, a.N = p.N;
  a.batches = static_cast<char*>(batches.data()) +
              begin * batch_step_stride * static_cast<int64_t>(item_size(p.batch_type));
  a.batch_model_stride = batch_model_stride, a.batch_step_stride = batch_step_stride;
  a.batch_row_stride = kBatchRowStride;
  a.rates = rates_.data() + begin, a.rate_model_stride = p.S + 1;
  a.stopped = static_cast<int64_t*>(stopped.data());
  a.step = p.step + begin;
  a.optimizer = p.recipe.optimizer, a.nesterov = p.recipe.nesterov;
  a.momentum = p.recipe.momentum, a.beta1 = p.recipe.beta1, a.beta2 = p.recipe.beta2;
  a.eps = p.recipe.eps, a.max_grad_norm = p.recipe.max_grad_norm;
  a.label_smoothing = p.recipe.label_smoothing;
  a.weight_decay = weight_decay_.data();
  a.input_dropout = input_dropout_.data(), a.hidden_dropout = hidden_dropout_.data();
  a.dropout = p.recipe.input_dropout > 0 || p.recipe.hidden_dropout > 0;
  a.seeds = seeds_.data(), a.streams = streams_.data();
  a.losses = losses_of_part;
  return a;
}

int64_t Trial::run_part(int64_t begin, int64_t count) {
  Values part(p.dtype, p.M * count);
  const int64_t position = launch_train_steps(arguments(begin, count, part.data()));
  CHECK(part.buffer.guards_intact(), "wrote outside losses");
  for (int64_t m = 0; m < p.M; ++m)
    for (int64_t s = 0; s < count; ++s) losses.set(m * p.S + begin + s, part.get(m * count + s));
  return position;
}

template <class Real>
Trial::Outcome Trial::simulate(int64_t m) const {
  PlainMLP<Real> plain(p.sizes, parameters.model(m));
  Outcome outcome(1);
  for (int64_t s = 0; s < p.S; ++s) {
    std::vector<int64_t> ids, targets;
    for (int64_t n = 0; n < p.N; ++n) {
      const int64_t row =
          batches.get(m * batch_model_stride + s * batch_step_stride + n * kBatchRowStride);
      for (int64_t id : examples.ids(row)) ids.push_back(id);
      targets.push_back(examples.target(row));
    }
    outcome[0].push_back(
        plain.train_step(ids, targets, recipe_of(m), rates_[m * (p.S + 1) + s], p.step + s));
  }
  append(outcome, plain.parameters);
  if (p.recipe.has_first()) append(outcome, plain.first);
  if (p.recipe.has_second()) append(outcome, plain.second);
  return outcome;
}

Trial::Outcome Trial::outcome(int64_t m) const {
  Outcome outcome(1);
  for (int64_t s = 0; s < p.S; ++s) outcome[0].push_back(loss(m, s));
  append(outcome, parameters.model(m));
  if (p.recipe.has_first()) append(outcome, first.model(m));
  if (p.recipe.has_second()) append(outcome, second.model(m));
  return outcome;
}

void Trial::expect() {
  exact_.clear(), plain_.clear();
  for (int64_t m = 0; m < p.M; ++m) {
    exact_.push_back(simulate<long double>(m));
    plain_.push_back(p.dtype == DType::f64 ? simulate<double>(m) : simulate<float>(m));
  }
}

// The largest error of each tensor may be four times that of the plain loop in the same dtype,
// since both are a few roundings, propagated by the steps. Where the plain loop happens to be
// exact, and for TF32 always, the bound is two units in the last place of the largest value of the
// tensor. Frozen tensors have not changed at all.
void Trial::check() {
  for (int64_t m = 0; m < p.M; ++m) {
    const Outcome got = outcome(m);
    for (size_t i = 0; i < got.size(); ++i) {
      long double error = 0, plain_error = 0, size = 0;
      for (size_t j = 0; j < got[i].size(); ++j) {
        const long double want = exact_[m][i][j], difference = std::fabs(got[i][j] - want);
        if (!(difference <= error)) error = difference;  // NaN too
        plain_error = std::fmax(plain_error, std::fabs(plain_[m][i][j] - want));
        size = std::fmax(size, std::fabs(want));
      }
      const double unit = p.tf32 ? 0x1p-11 : epsilon_of(p.dtype);
      const bool frozen =
          i > 0 && p.recipe.freezes((i - 1) % static_cast<size_t>(p.sizes.tensors()));
      const long double slack = frozen ? 0 : 4 * (plain_error + 2 * unit * size);
      CHECK(error <= slack,
            "model %lld, tensor %lld of losses, parameters, moments: %Lg, slack %Lg",
            static_cast<long long>(m), static_cast<long long>(i), error, slack);
    }
    CHECK(stopped.get(m) == -1, "stopped[%lld] is %lld", static_cast<long long>(m),
          static_cast<long long>(stopped.get(m)));
  }
  for (const ModelArrays* arrays : {&parameters, &first, &second})
    CHECK(arrays->gaps_untouched(), "wrote between two models");
}

std::vector<double> Trial::result(int64_t m) const {
  std::vector<double> all = {static_cast<double>(stopped.get(m))};
  for (const auto& tensor : outcome(m)) all.insert(all.end(), tensor.begin(), tensor.end());
  return all;
}

std::string Trial::label() const {
  std::string hidden;
  for (int64_t width : p.sizes.hidden) hidden += format(" %lld", static_cast<long long>(width));
  return format("%s %s M=%lld S=%lld N=%lld V=%lld T=%lld D=%lld C=%lld H=%s", p.name,
                name_of(p.dtype), static_cast<long long>(p.M), static_cast<long long>(p.S),
                static_cast<long long>(p.N), static_cast<long long>(p.sizes.V),
                static_cast<long long>(p.sizes.T), static_cast<long long>(p.sizes.D),
                static_cast<long long>(p.sizes.C), hidden.c_str());
}

// The optimizers with all of their options.
std::vector<Problem> optimizers() {
  Problem sgd, decay, momentum, nesterov, adamw, adamw_decay;
  sgd.name = "sgd";
  decay.name = "sgd with weight decay";
  decay.recipe.weight_decay = 0.1;
  momentum.name = "momentum";
  momentum.recipe.momentum = 0.9;
  nesterov.name = "nesterov";
  nesterov.recipe.momentum = 0.8, nesterov.recipe.nesterov = true;
  nesterov.recipe.weight_decay = 0.05;
  adamw.name = "adamw";
  adamw.rate = 0.01;
  adamw.recipe.optimizer = Optimizer::adamw;
  adamw.recipe.eps = 1e-4;  // with less, the rounding of a tiny gradient becomes a whole step
  adamw_decay = adamw;
  adamw_decay.name = "adamw with weight decay";
  adamw_decay.recipe.weight_decay = 0.3;
  adamw_decay.recipe.beta1 = 0.8, adamw_decay.recipe.beta2 = 0.95;
  adamw_decay.step = 7;  // the bias corrections of a later step, on moments of zero
  return {sgd, decay, momentum, nesterov, adamw, adamw_decay};
}

std::vector<std::vector<int64_t>> frozen_tensors(const MLPSizes& sizes) {
  std::vector<int64_t> biases, weights, all;
  for (int64_t i = 0; i < sizes.tensors(); ++i) {
    all.push_back(i);
    if (i > 0) (i % 2 ? weights : biases).push_back(i);
  }
  return {{0}, biases, weights, {0, 1, 2}, all};
}

Recipe everything(Optimizer optimizer) {
  Recipe recipe;
  recipe.optimizer = optimizer;
  recipe.weight_decay = 0.05;
  recipe.max_grad_norm = 0.7;
  recipe.label_smoothing = 0.2;
  recipe.input_dropout = 0.1, recipe.hidden_dropout = 0.3;
  recipe.seed = 0x123456789abcdef;
  recipe.stream = 5;
  if (optimizer == Optimizer::sgd)
    recipe.momentum = 0.9, recipe.nesterov = true;
  else
    recipe.eps = 1e-4;
  return recipe;
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(double));
}

void run_in_chunks(Trial& trial, const std::vector<int64_t>& lengths) {
  int64_t done = 0;
  for (int64_t length : lengths) {
    trial.run_part(done, length);
    done += length;
  }
}

}  // namespace mlpkern::testing
