// The bindings of embedding_linear_tanh; see bindings.cpp.
#include "binding/bad_id.h"
#include "binding/bindings.h"

namespace mlpkern {
namespace {

// Fills the arguments of both directions: ids, table (V, D) and weight (H, T*D).
template <class Args>
void set_embedded_layer(Args& a, Tensor& input, Tensor& embedding, Tensor& weight) {
  set_ids(a, input);
  embedding.require_ndim(2, 2);
  weight.require_ndim(2, 2);
  embedding.collapse(1, true);
  weight.collapse(1, true);
  a.dtype = embedding.dtype();
  weight.require_dtype(a.dtype);
  a.V = embedding.size(0);
  a.D = embedding.size(1);
  a.H = weight.size(0);
  weight.require_size(1, a.T * a.D);
  a.embedding = embedding.data();
  a.embedding_row_stride = embedding.row_stride();
  a.weight = weight.data();
  a.weight_row_stride = weight.row_stride();
}

py::object embedding_linear_tanh_forward(py::handle input_, py::handle embedding_,
                                         py::handle weight_, py::handle bias_) {
  const char* op = "embedding_linear_tanh";
  Tensor input(input_, {op, "input"}), embedding(embedding_, {op, "embedding"});
  Tensor weight(weight_, {op, "weight"});
  EmbeddingLinearTanhForward a;
  set_embedded_layer(a, input, embedding, weight);
  a.bias = nullptr;
  Tensor bias = bias_.is_none() ? weight : Tensor(bias_, {op, "bias"});
  if (!bias_.is_none()) set_bias(a, bias);
  const std::vector<int64_t> shape = leading_shape(input, a.H);
  py::object output = new_tensor(a.dtype, shape.data(), input.ndim(), &a.output);
  const int64_t bad = MLPKERN_LAUNCH(embedding_linear_tanh_forward, a, a.N * a.T * a.D * a.H);
  if (bad >= 0) throw_bad_id(op, input, bad, a.V);
  return output;
}

py::tuple embedding_linear_tanh_backward(py::handle doutput_, py::handle input_,
                                         py::handle embedding_, py::handle weight_,
                                         py::handle output_, bool need_embedding, bool need_weight,
                                         bool need_bias) {
  const char* op = "embedding_linear_tanh";
  Tensor doutput(doutput_, {op, "grad_output"}), input(input_, {op, "input"});
  Tensor embedding(embedding_, {op, "embedding"}), weight(weight_, {op, "weight"});
  Tensor output(output_, {op, "output"});
  EmbeddingLinearTanhBackward a;
  set_embedded_layer(a, input, embedding, weight);
  set_outputs(a, input, doutput, output);
  a.dembedding = a.dweight = a.dbias = nullptr;
  py::object dembedding = py::none(), dweight = py::none(), dbias = py::none();
  if (need_embedding) dembedding = new_tensor(a.dtype, {a.V, a.D}, &a.dembedding);
  if (need_weight) dweight = new_tensor(a.dtype, {a.H, a.T * a.D}, &a.dweight);
  if (need_bias) dbias = new_tensor(a.dtype, {a.H}, &a.dbias);
  const int64_t bad = MLPKERN_LAUNCH(embedding_linear_tanh_backward, a, a.N * a.T * a.D * a.H);
  if (bad >= 0) throw_bad_id(op, input, bad, a.V);
  return py::make_tuple(std::move(dembedding), std::move(dweight), std::move(dbias));
}

}  // namespace

void bind_embedding_linear_tanh(py::module_& m) {
  m.def("embedding_linear_tanh_forward", embedding_linear_tanh_forward, py::arg("input"),
        py::arg("embedding"), py::arg("weight"), py::arg("bias") = py::none());
  m.def("embedding_linear_tanh_backward", embedding_linear_tanh_backward, py::arg("grad_output"),
        py::arg("input"), py::arg("embedding"), py::arg("weight"), py::arg("output"),
        py::arg("need_embedding") = true, py::arg("need_weight") = true,
        py::arg("need_bias") = true);
}

}  // namespace mlpkern
