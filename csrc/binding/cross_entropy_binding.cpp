// The bindings of cross_entropy; see bindings.cpp.
#include "binding/bad_id.h"
#include "binding/bindings.h"

namespace mlpkern {
namespace {

Reduction reduction_of(int64_t value) {
  if (value < 0 || value > 2)
    throw py::value_error("cross_entropy: reduction must be 0, 1 or 2, got " +
                          std::to_string(value));
  return static_cast<Reduction>(value);
}

// Fills the arguments of both directions: logits (N, C), target, class weights, options.
template <class Args>
void set_classes(Args& a, Tensor& input, Tensor& target, Tensor* weight, int64_t ignore_index,
                 int64_t reduction, double label_smoothing) {
  input.require_ndim(2, 2);
  input.collapse(1, true);
  a.dtype = input.dtype();
  a.N = input.size(0);
  a.C = input.size(1);
  a.input = input.data();
  a.input_row_stride = input.row_stride();
  a.target_is_probability = target.is_floating();
  a.index_type = IndexType::i64;
  target.require_ndim(a.target_is_probability ? 2 : 1, a.target_is_probability ? 2 : 1);
  target.require_size(0, a.N);
  if (a.target_is_probability) {
    target.require_dtype(a.dtype);
    target.require_size(1, a.C);
    target.collapse(1, true);
    a.target_row_stride = target.row_stride();
  } else {
    a.index_type = target.index_type();
    a.target_row_stride = target.stride(0);
  }
  a.target = target.data();
  a.weight = nullptr;
  if (weight) {
    weight->require_ndim(1, 1);
    weight->require_size(0, a.C);
    weight->require_dtype(a.dtype);
    weight->collapse(1, true);
    a.weight = weight->data();
  }
  a.ignore_index = ignore_index;
  a.reduction = reduction_of(reduction);
  a.label_smoothing = label_smoothing;
}

py::tuple cross_entropy_forward(py::handle input_, py::handle target_, py::handle weight_,
                                int64_t ignore_index, int64_t reduction, double label_smoothing) {
  const char* op = "cross_entropy";
  Place place;
  Tensor input(input_, {op, "input"}, place), target(target_, {op, "target"}, place);
  Tensor weight = weight_.is_none() ? input : Tensor(weight_, {op, "weight"}, place);
  CrossEntropyForward a;
  set_classes(a, input, target, weight_.is_none() ? nullptr : &weight, ignore_index, reduction,
              label_smoothing);
  const DType acc = acc_dtype(a.dtype);
  py::object loss = a.reduction == Reduction::none ? new_tensor(place, a.dtype, {a.N}, &a.loss)
                                                   : new_tensor(place, a.dtype, {}, &a.loss);
  py::object lse = new_tensor(place, acc, {2, a.N}, &a.lse);
  py::object total_weight = new_tensor(place, acc, {}, &a.total_weight);
  const int64_t bad = MLPKERN_LAUNCH_ON(place, op, cross_entropy_forward, a, a.N * a.C);
  if (bad >= 0)
    throw_bad_target(position_text(shape_of(target), bad), id_at(target, bad), a.C, ignore_index);
  return py::make_tuple(std::move(loss), std::move(lse), std::move(total_weight));
}

py::object cross_entropy_backward(py::handle dloss_, py::handle input_, py::handle target_,
                                  py::handle weight_, py::handle lse_, py::handle total_weight_,
                                  int64_t ignore_index, int64_t reduction, double label_smoothing) {
  const char* op = "cross_entropy";
  Place place;
  Tensor dloss(dloss_, {op, "grad_output"}, place);
  Tensor input(input_, {op, "input"}, place), target(target_, {op, "target"}, place);
  Tensor lse(lse_, {op, "lse"}, place), total_weight(total_weight_, {op, "total_weight"}, place);
  Tensor weight = weight_.is_none() ? input : Tensor(weight_, {op, "weight"}, place);
  CrossEntropyBackward a;
  set_classes(a, input, target, weight_.is_none() ? nullptr : &weight, ignore_index, reduction,
              label_smoothing);
  dloss.require_dtype(a.dtype);
  a.dloss_stride = 0;
  if (a.reduction == Reduction::none) {
    dloss.require_ndim(1, 1);
    dloss.require_size(0, a.N);
    a.dloss_stride = dloss.stride(0);
  } else {
    dloss.require_ndim(0, 0);
  }
  lse.require_ndim(2, 2);
  lse.require_size(0, 2);
  lse.require_size(1, a.N);
  lse.require_dtype(acc_dtype(a.dtype));
  lse.collapse(2, true);
  if (a.N > 0 && lse.stride(0) != a.N)
    throw py::value_error("cross_entropy: lse must be contiguous");
  total_weight.require_ndim(0, 0);
  total_weight.require_dtype(acc_dtype(a.dtype));
  a.dloss = dloss.data();
  a.lse = lse.data();
  a.total_weight = total_weight.data();
  py::object dinput = new_tensor(place, a.dtype, {a.N, a.C}, &a.dinput);
  const int64_t bad = MLPKERN_LAUNCH_ON(place, op, cross_entropy_backward, a, a.N * a.C);
  if (bad >= 0)
    throw_bad_target(position_text(shape_of(target), bad), id_at(target, bad), a.C, ignore_index);
  return dinput;
}

}  // namespace

void bind_cross_entropy(py::module_& m) {
  m.def("cross_entropy_forward", cross_entropy_forward, py::arg("input"), py::arg("target"),
        py::arg("weight"), py::arg("ignore_index"), py::arg("reduction"),
        py::arg("label_smoothing"));
  m.def("cross_entropy_backward", cross_entropy_backward, py::arg("grad_output"), py::arg("input"),
        py::arg("target"), py::arg("weight"), py::arg("lse"), py::arg("total_weight"),
        py::arg("ignore_index"), py::arg("reduction"), py::arg("label_smoothing"));
}

}  // namespace mlpkern
