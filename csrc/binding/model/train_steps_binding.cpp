// The binding of train_steps: one launch without the interpreter lock, which ends early when asked
// to; see bindings.cpp.
#include <pybind11/stl.h>

#include "binding/model/gpu_kernels.h"
#include "binding/model/interruption.h"
#include "binding/model/train_steps_arguments.h"
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

py::object train_steps(const py::sequence& parameters, const std::vector<bool>& frozen,
                       const py::object& first, const py::object& second, py::handle inputs,
                       py::handle targets, py::handle batches, py::handle rates, py::handle stopped,
                       int64_t step, int64_t optimizer, double momentum, bool nesterov,
                       double beta1, double beta2, double eps, double max_grad_norm,
                       double label_smoothing, py::handle weight_decay, py::handle input_dropout,
                       py::handle hidden_dropout, py::handle seeds, py::handle streams, bool tf32,
                       const py::object& state, const py::list& landing, const py::object& flag) {
  TrainStepsArguments arguments(parameters, frozen, first, second, inputs, targets, batches, rates,
                                stopped, step, optimizer, momentum, nesterov, beta1, beta2, eps,
                                max_grad_norm, label_smoothing, weight_decay, input_dropout,
                                hidden_dropout, seeds, streams, tf32);
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
  // No byte code from here on, so no handler of a signal runs before all is in its place.
  for (const py::handle& copy_back : landing) copy_back();
  state.attr("step") = a.step + run.done;
  return run.done < a.S ? losses.attr("narrow")(1, 0, run.done) : losses;
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
}

}  // namespace mlpkern
