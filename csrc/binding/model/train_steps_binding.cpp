// The binding of train_steps: one launch without the interpreter lock, which ends early when asked
// to; see bindings.cpp.
#include "binding/model/gpu_kernels.h"
#include "binding/model/interruption.h"
#include "binding/model/train_steps_arguments.h"
#include "cpu/dispatch.h"
#include "cpu/threads/pieces.h"

namespace mlpkern {
namespace {

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

py::object train_steps(py::handle record, bool tf32, const py::object& state,
                       const py::list& landing, const py::object& flag) {
  TrainStepsArguments arguments(record, tf32);
  TrainSteps& a = arguments.kernel;
  const Place& place = arguments.place;
  py::object losses = new_tensor(place, a.model.dtype, {a.model.M, a.S}, &a.losses);
  const bool nothing = a.model.M == 0 || a.S == 0;
  if (!place.is_cpu()) {
    if (!nothing)
      launch_on_gpu("train_steps", cuda_library().train_steps_path, cuda_library().train_steps,
                    cuda_library().train_steps_workspace, a, place);
    return losses;
  }
  arguments.require_ids_in_range();
  if (nothing) return losses;
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
  // No bytecode from here on, so no handler of a signal runs before all is in its place.
  for (const py::handle& copy_back : landing) copy_back();
  state.attr("step") = a.step + run.done;
  return run.done < a.S ? losses.attr("narrow")(1, 0, run.done) : losses;
}

// (threads of each step, models at the same time) on a CPU; widths: D, H1 ... HL, C.
py::tuple sharing(int64_t models, int64_t rows, int64_t V, int64_t T, std::vector<int64_t> widths,
                  bool float64, bool input_dropout) {
  TrainSteps a{};
  const std::vector<double> dropout(static_cast<size_t>(models), input_dropout ? 0.5 : 0);
  a.model.dtype = float64 ? DType::f64 : DType::f32;
  a.model.M = models;
  a.model.V = V;
  a.model.T = T;
  a.model.D = widths.front();
  a.model.C = widths.back();
  a.model.L = static_cast<int64_t>(widths.size()) - 2;
  a.model.hidden = widths.data() + 1;
  a.N = rows;
  a.input_dropout = dropout.data();
  const cpu::Sharing found = cpu::train_steps_sharing(a);
  return py::make_tuple(found.threads, found.models);
}

}  // namespace

void bind_train_steps(py::module_& m) {
  m.def("train_steps_sharing", sharing, py::arg("models"), py::arg("rows"), py::arg("vocabulary"),
        py::arg("context"), py::arg("widths"), py::arg("float64"), py::arg("input_dropout"),
        "(threads of each step, models at the same time) of train_steps on a CPU; widths: of the "
        "embedding, the hidden layers and the logits.");
  m.def("train_steps", train_steps, py::arg("arguments"), py::arg("tf32") = false,
        py::arg("state") = py::none(), py::arg("landing") = py::list(),
        py::arg("flag") = py::none(),
        "With `state`, on a CPU: ends between two steps when a signal with a handler in Python "
        "comes, or `flag`, a buffer of one byte, is not 0; then calls all of `landing`, sets "
        "state.step, and returns the losses of the steps done.");
}

}  // namespace mlpkern
