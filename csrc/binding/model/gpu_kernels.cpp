#include "binding/model/gpu_kernels.h"

#include <pybind11/stl.h>

#include <limits>
#include <vector>

namespace mlpkern {
namespace {

const char* name_of(ModelPath path) {
  return path == ModelPath::narrow ? "narrow" : path == ModelPath::block ? "block" : "";
}

// A model of these sizes, with null pointers.
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

}  // namespace

void bind_gpu_kernels(py::module_& m) {
  m.def("train_steps_path", train_steps_path, py::arg("device_index"), py::arg("V"), py::arg("T"),
        py::arg("D"), py::arg("C"), py::arg("hidden"), py::arg("N"), py::arg("optimizer"),
        py::arg("momentum"), py::arg("clips"), py::arg("tf32"),
        "The CUDA kernel that trains such a model in float32: \"narrow\", \"block\" or \"\".");
  m.def("evaluate_path", evaluate_path, py::arg("device_index"), py::arg("V"), py::arg("T"),
        py::arg("D"), py::arg("C"), py::arg("hidden"), py::arg("tf32"),
        "The same for evaluate: \"block\" or \"\".");
}

}  // namespace mlpkern
