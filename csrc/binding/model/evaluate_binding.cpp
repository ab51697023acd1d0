// The binding of evaluate; see bindings.cpp.
#include <optional>
#include <vector>

#include "binding/model/examples.h"
#include "binding/model/gpu_kernels.h"
#include "binding/model/interruption.h"
#include "binding/model/model_tensors.h"
#include "cpu/threads/pieces.h"

namespace mlpkern {
namespace {

// evaluate changes nothing, so it can run the handlers of signals in the middle of its work.
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

void bind_evaluate(py::module_& m) {
  m.def("evaluate", evaluate, py::arg("parameters"), py::arg("inputs"), py::arg("targets"),
        py::arg("tf32") = false, py::arg("flag") = py::none(),
        "On a CPU: runs handlers of signals meanwhile. Once `flag` is not 0 the results are "
        "invalid.");
}

}  // namespace mlpkern
