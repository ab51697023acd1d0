// The bindings of linear_tanh; see bindings.cpp.
#include "binding/bindings.h"

namespace mlpkern {
namespace {

// Fills the arguments of both directions: input (..., K) as N rows, weight (H, K).
template <class Args>
void set_linear(Args& a, Tensor& input, Tensor& weight) {
  input.require_ndim(1, kAnyRank);
  weight.require_ndim(2, 2);
  input.collapse(1, true);
  weight.collapse(1, true);
  a.dtype = input.dtype();
  weight.require_dtype(a.dtype);
  a.N = rows_of(input);
  a.K = input.size(-1);
  a.H = weight.size(0);
  weight.require_size(1, a.K);
  a.input = input.data();
  a.input_row_stride = input.row_stride();
  a.weight = weight.data();
  a.weight_row_stride = weight.row_stride();
}

py::object linear_tanh_forward(py::handle input_, py::handle weight_, py::handle bias_, bool tf32) {
  const char* op = "linear_tanh";
  Place place;
  Tensor input(input_, {op, "input"}, place), weight(weight_, {op, "weight"}, place);
  LinearTanhForward a;
  a.tf32 = tf32;
  set_linear(a, input, weight);
  a.bias = nullptr;
  Tensor bias = bias_.is_none() ? weight : Tensor(bias_, {op, "bias"}, place);
  if (!bias_.is_none()) set_bias(a, bias);
  const std::vector<int64_t> shape = leading_shape(input, a.H);
  py::object output = new_tensor(place, a.dtype, shape.data(), input.ndim(), &a.output);
  MLPKERN_LAUNCH_ON(place, op, linear_tanh_forward, a, a.N * a.K * a.H);
  return output;
}

py::tuple linear_tanh_backward(py::handle doutput_, py::handle input_, py::handle weight_,
                               py::handle output_, bool need_input, bool need_weight,
                               bool need_bias, bool tf32) {
  const char* op = "linear_tanh";
  Place place;
  Tensor doutput(doutput_, {op, "grad_output"}, place), input(input_, {op, "input"}, place);
  Tensor weight(weight_, {op, "weight"}, place), output(output_, {op, "output"}, place);
  LinearTanhBackward a;
  a.tf32 = tf32;
  set_linear(a, input, weight);
  set_outputs(a, input, doutput, output);
  a.dinput = a.dweight = a.dbias = nullptr;
  py::object dinput = py::none(), dweight = py::none(), dbias = py::none();
  if (need_input) dinput = new_tensor(place, a.dtype, input.shape(), input.ndim(), &a.dinput);
  if (need_weight) dweight = new_tensor(place, a.dtype, {a.H, a.K}, &a.dweight);
  if (need_bias) dbias = new_tensor(place, a.dtype, {a.H}, &a.dbias);
  MLPKERN_LAUNCH_ON(place, op, linear_tanh_backward, a, a.N * a.K * a.H);
  return py::make_tuple(std::move(dinput), std::move(dweight), std::move(dbias));
}

// The parts around matrix products by cuBLAS, on a GPU only.

void require_gpu(const char* op, const Place& place) {
  if (place.is_cpu()) throw py::value_error(std::string(op) + ": the tensors must be on a GPU");
}

// In place: output becomes tanh(output + bias).
void linear_tanh_epilogue(py::handle output_, py::handle bias_) {
  const char* op = "linear_tanh_epilogue";
  Place place;
  Tensor output(output_, {op, "output"}, place);
  require_gpu(op, place);
  LinearTanhEpilogue a;
  output.require_ndim(2, 2);
  a.dtype = output.dtype();
  a.N = output.size(0);
  a.H = output.size(1);
  if (a.N > 0 && a.H > 0 && (output.stride(1) != 1 || output.stride(0) != a.H))
    throw py::value_error("linear_tanh_epilogue: output must be contiguous");
  a.output = output.mutable_data();
  a.bias = nullptr;
  Tensor bias = bias_.is_none() ? output : Tensor(bias_, {op, "bias"}, place);
  if (!bias_.is_none()) set_bias(a, bias);
  launch_cuda(op, cuda_library().linear_tanh_epilogue,
              cuda_library().linear_tanh_epilogue_workspace, a, place);
}

// (dz, dbias) of rows (N, H); dbias is None unless asked for.
py::tuple linear_tanh_slope(py::handle doutput_, py::handle output_, bool need_bias) {
  const char* op = "linear_tanh_slope";
  Place place;
  Tensor doutput(doutput_, {op, "grad_output"}, place), output(output_, {op, "output"}, place);
  require_gpu(op, place);
  LinearTanhSlope a;
  output.require_ndim(2, 2);
  a.dtype = output.dtype();
  a.N = output.size(0);
  a.H = output.size(1);
  set_outputs(a, output, doutput, output);
  a.dbias = nullptr;
  py::object dz = new_tensor(place, a.dtype, {a.N, a.H}, &a.dz), dbias = py::none();
  if (need_bias) dbias = new_tensor(place, a.dtype, {a.H}, &a.dbias);
  launch_cuda(op, cuda_library().linear_tanh_slope, cuda_library().linear_tanh_slope_workspace, a,
              place);
  return py::make_tuple(std::move(dz), std::move(dbias));
}

}  // namespace

void bind_linear_tanh(py::module_& m) {
  m.def("linear_tanh_forward", linear_tanh_forward, py::arg("input"), py::arg("weight"),
        py::arg("bias") = py::none(), py::arg("tf32") = false);
  m.def("linear_tanh_backward", linear_tanh_backward, py::arg("grad_output"), py::arg("input"),
        py::arg("weight"), py::arg("output"), py::arg("need_input") = true,
        py::arg("need_weight") = true, py::arg("need_bias") = true, py::arg("tf32") = false);
  m.def("linear_tanh_epilogue", linear_tanh_epilogue, py::arg("output"),
        py::arg("bias") = py::none());
  m.def("linear_tanh_slope", linear_tanh_slope, py::arg("grad_output"), py::arg("output"),
        py::arg("need_bias") = true);
}

}  // namespace mlpkern
