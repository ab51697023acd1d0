// The bindings of embedding_gather; see bindings.cpp.
#include "binding/bad_id.h"
#include "binding/bindings.h"

namespace mlpkern {
namespace {

py::object embedding_gather_forward(py::handle input_, py::handle weight_) {
  const char* op = "embedding_gather";
  Place place;
  Tensor input(input_, {op, "input"}, place), weight(weight_, {op, "weight"}, place);
  EmbeddingGatherForward a;
  set_ids(a, input);
  a.input_shape = shape_of(input);
  weight.require_ndim(2, 2);
  weight.collapse(1, true);
  a.dtype = weight.dtype();
  a.V = weight.size(0);
  a.D = weight.size(1);
  a.weight = weight.data();
  a.weight_row_stride = weight.row_stride();
  const std::vector<int64_t> shape = leading_shape(input, a.T * a.D);
  py::object output = new_tensor(place, a.dtype, shape.data(), input.ndim(), &a.output);
  const int64_t bad = MLPKERN_LAUNCH_ON(place, op, embedding_gather_forward, a, a.N * a.T * a.D);
  if (bad >= 0) throw_bad_id(op, input, bad, a.V);
  return output;
}

py::object embedding_gather_backward(py::handle doutput_, py::handle input_, int64_t num_embeddings,
                                     int64_t padding_idx) {
  const char* op = "embedding_gather";
  Place place;
  Tensor doutput(doutput_, {op, "grad_output"}, place), input(input_, {op, "input"}, place);
  EmbeddingGatherBackward a;
  set_ids(a, input);
  a.input_shape = shape_of(input);
  doutput.require_ndim(input.ndim(), input.ndim());
  for (int64_t axis = 0; axis + 1 < input.ndim(); ++axis)
    doutput.require_size(axis, input.size(axis));
  doutput.collapse(1, true);
  a.dtype = doutput.dtype();
  a.V = num_embeddings;
  a.D = a.T > 0 ? doutput.size(-1) / a.T : 0;
  if (a.T > 0) doutput.require_size(-1, a.T * a.D);
  if (a.V < 0) throw py::value_error("embedding_gather: num_embeddings must not be negative");
  a.doutput = doutput.data();
  a.doutput_row_stride = doutput.row_stride();
  a.padding_idx = padding_idx;
  py::object dweight = new_tensor(place, a.dtype, {a.V, a.D}, &a.dweight);
  const int64_t bad =
      MLPKERN_LAUNCH_ON(place, op, embedding_gather_backward, a, (a.N * a.T + a.V) * a.D);
  if (bad >= 0) throw_bad_id(op, input, bad, a.V);
  return dweight;
}

}  // namespace

void bind_embedding_gather(py::module_& m) {
  m.def("embedding_gather_forward", embedding_gather_forward, py::arg("input"), py::arg("weight"));
  m.def("embedding_gather_backward", embedding_gather_backward, py::arg("grad_output"),
        py::arg("input"), py::arg("num_embeddings"), py::arg("padding_idx") = -1);
}

}  // namespace mlpkern
