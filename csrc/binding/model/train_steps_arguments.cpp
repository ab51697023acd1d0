#include "binding/model/train_steps_arguments.h"

#include <type_traits>

#include "binding/model/examples.h"

namespace mlpkern {
namespace {

constexpr const char* kOp = "train_steps";

// The values of a vector of `size` elements of T.
template <class T>
T* values_of(const char* name, const Tensor& t, int64_t size) {
  t.require_ndim(1, 1);
  t.require_size(0, size);
  require(size <= 1 || t.stride(0) == 1,
          std::string("train_steps: ") + name + " must be contiguous");
  if (std::is_same_v<std::remove_const_t<T>, int64_t>)
    require(t.index_type() == IndexType::i64,
            std::string("train_steps: ") + name + " must be int64");
  else
    t.require_dtype(DType::f64);
  return static_cast<T*>(t.mutable_data());
}

}  // namespace

TrainStepsArguments::TrainStepsArguments(py::handle arguments, bool tf32)
    : record(kOp, arguments),
      parameters(kOp, "params", record.list("parameters"), place),
      first(kOp, "state.first", record.list("first"), place),
      second(kOp, "state.second", record.list("second"), place),
      inputs(record["inputs"], {kOp, "inputs"}, place),
      targets(record["targets"], {kOp, "targets"}, place),
      batches(record["batches"], {kOp, "batches"}, place),
      rates(record["rates"], {kOp, "lr"}, place),
      stopped(record["stopped"], {kOp, "state.stopped"}, place),
      weight_decay(record["weight_decay"], {kOp, "weight_decay"}, place),
      input_dropout(record["input_dropout"], {kOp, "input_dropout"}, place),
      hidden_dropout(record["hidden_dropout"], {kOp, "hidden_dropout"}, place),
      seeds(record["seeds"], {kOp, "seed"}, place),
      streams(record["streams"], {kOp, "stream"}, place) {
  kernel.tf32 = tf32;
  kernel.examples = describe_examples(inputs, targets);
  parameters.describe(kernel.model, hidden_, inputs.size(1));
  kernel.step = record.number<int64_t>("step");
  read_frozen();
  read_rule();
  read_steps();
}

void TrainStepsArguments::read_frozen() {
  const py::sequence list = record.list("frozen");
  require(static_cast<int64_t>(list.size()) == parameters.size(),
          "train_steps: frozen must have as many values as parameters");
  bool* next = frozen_;
  for (const py::handle kept : list) *next++ = kept.cast<bool>();
  kernel.frozen = frozen_;
}

void TrainStepsArguments::read_rule() {
  TrainSteps& a = kernel;
  Record rule(kOp, record["rule"]);
  const auto optimizer = rule.number<int64_t>("optimizer");
  require(optimizer == 0 || optimizer == 1, "train_steps: optimizer must be 0 or 1");
  a.optimizer = static_cast<Optimizer>(optimizer);
  a.momentum = rule.number<double>("momentum");
  a.nesterov = rule.number<bool>("nesterov");
  a.beta1 = rule.number<double>("beta1");
  a.beta2 = rule.number<double>("beta2");
  a.eps = rule.number<double>("eps");
  a.max_grad_norm = rule.number<double>("max_grad_norm");
  a.label_smoothing = rule.number<double>("label_smoothing");
  const bool needs_second = a.optimizer == Optimizer::adamw;
  const bool needs_first = needs_second || a.momentum != 0;
  require(first.empty() == !needs_first, "train_steps: first moments do not fit the optimizer");
  require(second.empty() == !needs_second, "train_steps: second moments do not fit the optimizer");
  if (needs_first) {
    first.require_like(parameters);
    a.first = first.pointers();
    a.first_strides = first.strides();
  }
  if (needs_second) {
    second.require_like(parameters);
    a.second = second.pointers();
    a.second_strides = second.strides();
  }
}

// Which rows each step takes, and what each model has its own of.
void TrainStepsArguments::read_steps() {
  TrainSteps& a = kernel;
  const int64_t M = a.model.M;
  batches.require_ndim(3, 3);
  batches.require_size(0, M);
  a.batch_type = batches.index_type();
  a.S = batches.size(1);
  a.N = batches.size(2);
  require(a.N > 0, "train_steps: batches must name at least one row a step");
  a.batches = batches.data();
  a.batch_model_stride = batches.stride(0);
  a.batch_step_stride = batches.stride(1);
  a.batch_row_stride = batches.stride(2);
  rates.require_ndim(2, 2);
  rates.require_size(0, M);
  rates.require_size(1, a.S);
  rates.require_dtype(DType::f64);
  require(a.S <= 1 || rates.stride(1) == 1, "train_steps: lr must be contiguous");
  a.rates = static_cast<const double*>(rates.data());
  a.rate_model_stride = rates.stride(0);
  a.stopped = values_of<int64_t>("state.stopped", stopped, M);
  a.weight_decay = values_of<const double>("weight_decay", weight_decay, M);
  a.input_dropout = values_of<const double>("input_dropout", input_dropout, M);
  a.hidden_dropout = values_of<const double>("hidden_dropout", hidden_dropout, M);
  a.seeds = values_of<const int64_t>("seed", seeds, M);
  a.streams = values_of<const int64_t>("stream", streams, M);
  a.dropout = !place.is_cpu();  // the probabilities of a GPU are not known here
  if (place.is_cpu())
    for (int64_t m = 0; m < M; ++m) a.dropout |= a.input_dropout[m] > 0 || a.hidden_dropout[m] > 0;
}

void TrainStepsArguments::require_ids_in_range() const {
  const TrainSteps& a = kernel;
  const int64_t shared_axes = a.model.M == 1 || batches.stride(0) == 0 ? 1 : 0;
  require_in_range(kOp, "batches", batches, a.examples.rows, "row", shared_axes);
  // A short call looks only at the rows it uses: they are far fewer than the data set has.
  if (a.model.M * a.S * a.N < a.examples.rows / 4 && examples_in_range(a)) return;
  require_in_range(kOp, "inputs", inputs, a.model.V, "id");
  require_in_range(kOp, "targets", targets, a.model.C, "target");
}

}  // namespace mlpkern
