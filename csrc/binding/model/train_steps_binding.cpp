// The bindings of train_steps and evaluate: many tensors, checked once, then one launch without the
// interpreter lock, which ends early when asked to. mlpkern/reference/train_steps.py says what the
// arguments are.
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "binding/bindings.h"
#include "binding/id_range.h"
#include "binding/model/interruption.h"
#include "binding/tensor/memory.h"
#include "binding/tensor/tensor.h"
#include "cpu/threads/pieces.h"
#include "kernels.h"

namespace mlpkern {
namespace {

constexpr int64_t kMostTensors = 2 * 64 + 1;  // of a model with 63 hidden layers

void require(bool holds, const std::string& message) {
  if (!holds) throw py::value_error(message);
}

// The tensors of M models in the order of kernels.h, each (M, ...) and contiguous within a model.
class ModelTensors {
 public:
  ModelTensors(const char* op, const char* name, const py::sequence& list, Place& place)
      : op_(op), name_(name) {
    for (size_t i = 0; i < list.size(); ++i) {
      objects_.push_back(list[i]);
      tensors_.emplace_back(objects_.back(), ArgumentName{op, name}, place);
      const Tensor& t = tensors_.back();
      pointers_.push_back(t.mutable_data());
      strides_.push_back(t.ndim() > 0 ? t.stride(0) : 0);
    }
  }

  // Checks that together they are M models and fills the sizes; `hidden` keeps the widths.
  void describe(MLP& model, std::vector<int64_t>& hidden, int64_t T) const {
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

  void require_like(const ModelTensors& other) const {
    require(tensors_.size() == other.tensors_.size(),
            where() + "must have as many tensors as parameters");
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const Tensor &mine = tensors_[i], &theirs = other.tensors_[i];
      mine.require_ndim(theirs.ndim(), theirs.ndim());
      for (int64_t axis = 0; axis < theirs.ndim(); ++axis)
        mine.require_size(axis, theirs.size(axis));
      mine.require_dtype(theirs.dtype());
      require(contiguous(mine), where() + "must be contiguous within each model");
    }
  }

  void* const* pointers() const { return pointers_.data(); }
  const int64_t* strides() const { return strides_.data(); }

 private:
  const Tensor& at(int64_t i) const { return tensors_[static_cast<size_t>(i)]; }
  std::string where() const { return std::string(op_) + ": " + name_ + " "; }

  static bool contiguous(const Tensor& t) {
    int64_t expected = 1;
    for (int64_t axis = t.ndim(); axis-- > 1; expected *= t.size(axis))
      if (t.size(axis) != 1 && t.stride(axis) != expected) return false;
    return true;
  }

  const char* op_;
  const char* name_;
  std::vector<py::object> objects_;
  std::vector<Tensor> tensors_;
  std::vector<void*> pointers_;
  std::vector<int64_t> strides_;
};

// ids of a tensor of up to three axes, checked against [0, limit).
void require_in_range(const char* op, const char* name, const Tensor& t, int64_t limit,
                      const char* noun, int64_t hidden_axes = 0) {
  int64_t sizes[3] = {1, 1, 1}, strides[3] = {0, 0, 0};
  for (int64_t axis = 0; axis < t.ndim(); ++axis) {
    sizes[3 - t.ndim() + axis] = t.size(axis);
    strides[3 - t.ndim() + axis] = t.stride(axis);
  }
  for (int64_t axis = 0; axis < hidden_axes; ++axis) sizes[axis] = 1;
  const int64_t flat = first_out_of_range(t.index_type(), t.data(), sizes, strides, limit);
  if (flat < 0) return;
  const int64_t at[3] = {flat / (sizes[1] * sizes[2]), flat / sizes[2] % sizes[1], flat % sizes[2]};
  std::string position;
  int64_t offset = 0;
  for (int64_t axis = 3 - t.ndim() + hidden_axes; axis < 3; ++axis)
    position += (position.empty() ? "[" : ", ") + std::to_string(at[axis]);
  for (int axis = 0; axis < 3; ++axis) offset += at[axis] * strides[axis];
  const int64_t value = read_id(t.index_type(), t.data(), offset);
  throw py::index_error(std::string(op) + ": " + name + position + "] is " + std::to_string(value) +
                        ", expected 0 <= " + noun + " < " + std::to_string(limit));
}

Examples describe_examples(const Tensor& inputs, const Tensor& targets) {
  inputs.require_ndim(2, 2);
  targets.require_ndim(1, 1);
  targets.require_size(0, inputs.size(0));
  Examples e;
  e.input_type = inputs.index_type();
  e.target_type = targets.index_type();
  e.rows = inputs.size(0);
  e.inputs = inputs.data();
  e.input_row_stride = inputs.stride(0);
  e.input_col_stride = inputs.stride(1);
  e.targets = targets.data();
  e.target_stride = targets.stride(0);
  return e;
}

// Whether the examples that the batches name hold only ids and targets in range.
bool examples_in_range(const TrainSteps& a) {
  const Examples& e = a.examples;
  for (int64_t m = 0; m < (a.batch_model_stride == 0 ? 1 : a.model.M); ++m)
    for (int64_t i = 0; i < a.S * a.N; ++i) {
      const int64_t row = read_id(
          a.batch_type, a.batches,
          m * a.batch_model_stride + i / a.N * a.batch_step_stride + i % a.N * a.batch_row_stride);
      for (int64_t t = 0; t < a.model.T; ++t) {
        const int64_t id =
            read_id(e.input_type, e.inputs, row * e.input_row_stride + t * e.input_col_stride);
        if (id < 0 || id >= a.model.V) return false;
      }
      const int64_t target = read_id(e.target_type, e.targets, row * e.target_stride);
      if (target < 0 || target >= a.model.C) return false;
    }
  return true;
}

template <class T>
T* vector_of(const char* name, const Tensor& t, int64_t size, bool integer) {
  t.require_ndim(1, 1);
  t.require_size(0, size);
  require(size <= 1 || t.stride(0) == 1,
          std::string("train_steps: ") + name + " must be contiguous");
  if (integer)
    require(t.index_type() == IndexType::i64,
            std::string("train_steps: ") + name + " must be int64");
  else
    t.require_dtype(DType::f64);
  return static_cast<T*>(t.mutable_data());
}

// On a GPU the ids were checked before, by torch: they lie there.
template <class Args>
void launch_on_gpu(const char* op, ModelPath (*path)(const Args&, int),
                   int (*kernel)(const Args&, int, void*), size_t (*workspace)(const Args&, int),
                   Args& a, const Place& place) {
  require(path(a, place.index) != ModelPath::none,
          std::string(op) + ": no kernel holds this model in a multiprocessor's shared memory");
  launch_cuda(op, kernel, workspace, a, place);
}

const char* name_of(ModelPath path) {
  return path == ModelPath::narrow ? "narrow" : path == ModelPath::block ? "block" : "";
}

// A model of these sizes, without memory.
MLP sizes_of(int64_t V, int64_t T, int64_t D, int64_t C, const std::vector<int64_t>& hidden) {
  MLP m = {};
  m.dtype = DType::f32;
  m.M = 1, m.V = V, m.T = T, m.D = D, m.C = C;
  m.L = static_cast<int64_t>(hidden.size());
  m.hidden = hidden.data();
  return m;
}

const char* train_steps_path(int device, int64_t V, int64_t T, int64_t D, int64_t C,
                             const std::vector<int64_t>& hidden, int64_t N, int64_t optimizer,
                             bool momentum, bool clips, bool tf32) {
  TrainSteps a = {};
  a.model = sizes_of(V, T, D, C, hidden);
  a.tf32 = tf32;
  a.S = 1, a.N = N;
  a.optimizer = static_cast<Optimizer>(optimizer);
  a.momentum = momentum ? 0.5 : 0;
  a.max_grad_norm = clips ? 1 : std::numeric_limits<double>::infinity();
  return name_of(cuda_library().train_steps_path(a, device));
}

const char* evaluate_path(int device, int64_t V, int64_t T, int64_t D, int64_t C,
                          const std::vector<int64_t>& hidden, bool tf32) {
  Evaluate a = {};
  a.model = sizes_of(V, T, D, C, hidden);
  a.tf32 = tf32;
  return name_of(cuda_library().evaluate_path(a, device));
}

// A call that ends where it is asked to.
struct Run {
  Interruption interruption;
  int64_t done;

  Run(const py::object& flag, int64_t steps) : interruption(flag), done(steps) {}

  cpu::Poll poll() {
    const auto go_on = [](void* context, int64_t steps) {
      Run& run = *static_cast<Run*>(context);
      if (!run.interruption.asked()) return true;
      run.done = steps;
      return false;
    };
    return {interruption.deaf() ? nullptr : +go_on, this, kPollSeconds};
  }
};

// A call that changes nothing, so handlers of signals run while it waits for them.
struct Measurement {
  Interruption interruption;
  std::optional<py::error_already_set> error;

  explicit Measurement(const py::object& flag) : interruption(flag) {}

  cpu::Poll poll() {
    const auto go_on = [](void* context, int64_t) {
      Measurement& measurement = *static_cast<Measurement*>(context);
      if (!measurement.interruption.asked()) return true;
      const py::gil_scoped_acquire acquire;
      if (!measurement.interruption.listens()) return false;
      if (!PyErr_CheckSignals()) return true;
      measurement.error.emplace();
      return false;
    };
    return {interruption.deaf() ? nullptr : +go_on, this, kPollSeconds};
  }
};

py::object train_steps(const py::sequence& parameters_, const std::vector<bool>& frozen_,
                       const py::object& first_, const py::object& second_, py::handle inputs_,
                       py::handle targets_, py::handle batches_, py::handle rates_,
                       py::handle stopped_, int64_t step, int64_t optimizer, double momentum,
                       bool nesterov, double beta1, double beta2, double eps, double max_grad_norm,
                       double label_smoothing, py::handle weight_decay_, py::handle input_dropout_,
                       py::handle hidden_dropout_, py::handle seeds_, py::handle streams_,
                       bool tf32, const py::object& state, const py::list& landing,
                       const py::object& flag) {
  const char* op = "train_steps";
  Place place;
  const ModelTensors parameters(op, "params", parameters_, place);
  const Tensor inputs(inputs_, {op, "inputs"}, place), targets(targets_, {op, "targets"}, place);
  const Tensor batches(batches_, {op, "batches"}, place), rates(rates_, {op, "lr"}, place);
  const Tensor stopped(stopped_, {op, "state.stopped"}, place);
  const Tensor weight_decay(weight_decay_, {op, "weight_decay"}, place);
  const Tensor input_dropout(input_dropout_, {op, "input_dropout"}, place);
  const Tensor hidden_dropout(hidden_dropout_, {op, "hidden_dropout"}, place);
  const Tensor seeds(seeds_, {op, "seed"}, place), streams(streams_, {op, "stream"}, place);
  TrainSteps a = {};
  a.tf32 = tf32;
  a.examples = describe_examples(inputs, targets);
  std::vector<int64_t> hidden;
  parameters.describe(a.model, hidden, inputs.size(1));
  const int64_t M = a.model.M;
  require(frozen_.size() == parameters_.size(),
          "train_steps: frozen must have as many values as parameters");
  bool frozen[kMostTensors];
  std::copy(frozen_.begin(), frozen_.end(), frozen);
  a.frozen = frozen;

  require(optimizer == 0 || optimizer == 1, "train_steps: optimizer must be 0 or 1");
  a.optimizer = static_cast<Optimizer>(optimizer);
  const bool needs_second = a.optimizer == Optimizer::adamw;
  const bool needs_first = needs_second || momentum != 0;
  require(first_.is_none() == !needs_first, "train_steps: first moments do not fit the optimizer");
  require(second_.is_none() == !needs_second,
          "train_steps: second moments do not fit the optimizer");
  const py::sequence none = py::tuple();
  const ModelTensors first(op, "state.first", needs_first ? py::sequence(first_) : none, place);
  const ModelTensors second(op, "state.second", needs_second ? py::sequence(second_) : none, place);
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
  a.stopped = vector_of<int64_t>("state.stopped", stopped, M, true);
  a.step = step;
  a.nesterov = nesterov;
  a.momentum = momentum;
  a.beta1 = beta1;
  a.beta2 = beta2;
  a.eps = eps;
  a.max_grad_norm = max_grad_norm;
  a.label_smoothing = label_smoothing;
  a.weight_decay = vector_of<const double>("weight_decay", weight_decay, M, false);
  a.input_dropout = vector_of<const double>("input_dropout", input_dropout, M, false);
  a.hidden_dropout = vector_of<const double>("hidden_dropout", hidden_dropout, M, false);
  a.seeds = vector_of<const int64_t>("seed", seeds, M, true);
  a.streams = vector_of<const int64_t>("stream", streams, M, true);

  py::object losses = new_tensor(place, a.model.dtype, {M, a.S}, &a.losses);
  if (!place.is_cpu()) {
    a.dropout = true;  // the probabilities lie there
    if (M > 0 && a.S > 0)
      launch_on_gpu(op, cuda_library().train_steps_path, cuda_library().train_steps,
                    cuda_library().train_steps_workspace, a, place);
    return losses;
  }
  for (int64_t m = 0; m < M; ++m) a.dropout |= a.input_dropout[m] > 0 || a.hidden_dropout[m] > 0;
  const int64_t shared_axes = M == 1 || batches.stride(0) == 0 ? 1 : 0;
  require_in_range(op, "batches", batches, a.examples.rows, "row", shared_axes);
  // A short call looks only at the rows it uses: they are far fewer than the data set has.
  if (!(M * a.S * a.N < a.examples.rows / 4 && examples_in_range(a))) {
    require_in_range(op, "inputs", inputs, a.model.V, "id");
    require_in_range(op, "targets", targets, a.model.C, "target");
  }

  if (M == 0 || a.S == 0) return losses;
  const memory::Scratch scratch(cpu::train_steps_workspace(a));
  a.workspace = scratch.get();
  if (state.is_none()) {
    const cpu::Asking nobody({});
    const py::gil_scoped_release release;
    cpu::train_steps(a);
    return losses;
  }
  Run run(flag, a.S);
  {
    const cpu::Asking asking(run.poll());
    const py::gil_scoped_release release;
    cpu::train_steps(a);
  }
  // No byte code from here on, so no handler of a signal runs before all is in its place.
  for (const py::handle& copy_back : landing) copy_back();
  state.attr("step") = step + run.done;
  return run.done < a.S ? losses.attr("narrow")(1, 0, run.done) : losses;
}

py::tuple evaluate(const py::sequence& parameters_, py::handle inputs_, py::handle targets_,
                   bool tf32, const py::object& flag) {
  const char* op = "evaluate";
  Place place;
  const ModelTensors parameters(op, "params", parameters_, place);
  const Tensor inputs(inputs_, {op, "inputs"}, place), targets(targets_, {op, "targets"}, place);
  Evaluate a = {};
  a.tf32 = tf32;
  a.examples = describe_examples(inputs, targets);
  std::vector<int64_t> hidden;
  parameters.describe(a.model, hidden, inputs.size(1));
  void *loss, *accuracy;
  py::object losses = new_tensor(place, DType::f64, {a.model.M}, &loss);
  py::object accuracies = new_tensor(place, DType::f64, {a.model.M}, &accuracy);
  a.loss = static_cast<double*>(loss);
  a.accuracy = static_cast<double*>(accuracy);
  if (!place.is_cpu()) {
    if (a.model.M > 0)
      launch_on_gpu(op, cuda_library().evaluate_path, cuda_library().evaluate,
                    cuda_library().evaluate_workspace, a, place);
    return py::make_tuple(std::move(losses), std::move(accuracies));
  }
  require_in_range(op, "inputs", inputs, a.model.V, "id");
  require_in_range(op, "targets", targets, a.model.C, "target");
  if (a.model.M > 0) {
    const memory::Scratch scratch(cpu::evaluate_workspace(a));
    a.workspace = scratch.get();
    Measurement measurement(flag);
    {
      const cpu::Asking asking(measurement.poll());
      const py::gil_scoped_release release;
      cpu::evaluate(a);
    }
    if (measurement.error) throw *measurement.error;
  }
  return py::make_tuple(std::move(losses), std::move(accuracies));
}

}  // namespace

void bind_train_steps(py::module_& m) {
  m.def("train_steps", train_steps, py::arg("parameters"), py::arg("frozen"), py::arg("first"),
        py::arg("second"), py::arg("inputs"), py::arg("targets"), py::arg("batches"),
        py::arg("rates"), py::arg("stopped"), py::arg("step"), py::arg("optimizer"),
        py::arg("momentum"), py::arg("nesterov"), py::arg("beta1"), py::arg("beta2"),
        py::arg("eps"), py::arg("max_grad_norm"), py::arg("label_smoothing"),
        py::arg("weight_decay"), py::arg("input_dropout"), py::arg("hidden_dropout"),
        py::arg("seeds"), py::arg("streams"), py::arg("tf32") = false,
        py::arg("state") = py::none(), py::arg("landing") = py::list(),
        py::arg("flag") = py::none(),
        "With `state`, on a CPU: ends between two steps when a signal with a handler in Python "
        "comes, or `flag`, a buffer of one byte, is not 0; then calls all of `landing`, sets "
        "state.step, and returns the losses of the steps done.");
  m.def("evaluate", evaluate, py::arg("parameters"), py::arg("inputs"), py::arg("targets"),
        py::arg("tf32") = false, py::arg("flag") = py::none(),
        "On a CPU: handlers of signals run meanwhile. Once `flag` is not 0 the results are void.");
  m.def("train_steps_path", train_steps_path, py::arg("device_index"), py::arg("V"), py::arg("T"),
        py::arg("D"), py::arg("C"), py::arg("hidden"), py::arg("N"), py::arg("optimizer"),
        py::arg("momentum"), py::arg("clips"), py::arg("tf32"),
        "The kernel of a GPU that trains such a model in float32: narrow, block, or none.");
  m.def("evaluate_path", evaluate_path, py::arg("device_index"), py::arg("V"), py::arg("T"),
        py::arg("D"), py::arg("C"), py::arg("hidden"), py::arg("tf32"),
        "The same of evaluate: block or none.");
}

}  // namespace mlpkern
