// linear_tanh on a GPU: which kernels run a call, and with which tiles.
//
//   forward   one product whose epilogue adds the bias and applies tanh
//   backward  a product for dinput; one for dweight and dbias over pieces of the batch, and their
//             sum. Neither stores dz.
//   epilogue, slope   what surrounds a matrix product by cuBLAS
//
// All choices follow from the shape, and so do the bits of a result; only a device with too little
// shared memory for a tiling falls back to smaller tiles.
//
// Compile alone:
// nvcc -std=c++17 -arch=sm_90 -Icsrc -Xptxas -v -cubin csrc/cuda/linear_tanh.cu
#include "cuda/library.h"
#include "cuda/linear_tanh/elements.cuh"
#include "cuda/linear_tanh/plain.cuh"
#include "cuda/linear_tanh/sizes.cuh"
#include "cuda/linear_tanh/slope.cuh"

namespace mlpkern::cuda {
namespace {

// --- Products ------------------------------------------------------------------------------------

template <class T>
Matrix<T> matrix(const void* data, int64_t stride, const void* if_empty) {
  const int bytes = vector_items(sizeof(T), {data}, {stride}) * static_cast<int>(sizeof(T));
  const bool is_far = stride * static_cast<int64_t>(sizeof(T)) > UINT32_MAX;
  return {static_cast<const T*>(data ? data : if_empty), stride, is_far && bytes == 16 ? 8 : bytes};
}

template <class Math, Kind kind>
cudaError_t multiply(const Product<typename Math::type>& p, Size size, void* stream) {
  using Small = typename Tilings<Math, kind>::Small;
  return for_size<Math, kind>(size, [&](auto tiling) {
    using Tile = typename decltype(tiling)::type;
    if (ProductShape<Math, kind, Tile>::kShared <=
        shared_limit<linear_tanh_product_kernel<Math, kind, Tile>>())
      return launch_product<Math, kind, Tile>(p, stream);
    return launch_product<Math, kind, Small>(p, stream);
  });
}

template <class T>
Product<T> forward_product(const LinearTanhForward& a) {
  Product<T> p{};
  p.a = matrix<T>(a.input, a.input_row_stride, a.output);
  p.b = matrix<T>(a.weight, a.weight_row_stride, a.output);
  p.rows = a.N, p.cols = a.H, p.depth = p.piece_depth = a.K, p.pieces = 1;
  p.bias = static_cast<const T*>(a.bias);
  p.output = static_cast<T*>(a.output);
  return p;
}

template <class T>
Product<T> dinput_product(const LinearTanhBackward& a) {
  Product<T> p{};
  p.a = matrix<T>(a.doutput, a.doutput_row_stride, a.dinput);
  p.y = matrix<T>(a.output, a.output_row_stride, a.dinput);
  p.b = matrix<T>(a.weight, a.weight_row_stride, a.dinput);
  p.rows = a.N, p.cols = a.K, p.depth = p.piece_depth = a.H, p.pieces = 1;
  p.output = static_cast<T*>(a.dinput);
  return p;
}

template <class T>
Product<T> dweight_product(const LinearTanhBackward& a, const DweightPlan& plan) {
  Product<T> p{};
  p.a = matrix<T>(a.doutput, a.doutput_row_stride, a.dweight);
  p.y = matrix<T>(a.output, a.output_row_stride, a.dweight);
  p.b = matrix<T>(a.input, a.input_row_stride, a.dweight);
  p.rows = a.H, p.cols = a.K, p.depth = a.N;
  p.piece_depth = plan.pieces.rows, p.pieces = plan.pieces.count;
  p.output = static_cast<T*>(a.dweight);
  p.partial = static_cast<acc_t<T>*>(a.workspace), p.partial_stride = plan.partial_stride;
  return p;
}

template <class T>
cudaError_t dbias_alone(const LinearTanhBackward& a, acc_t<T>* partial, void* stream) {
  return slope<T>({a.dtype, a.N, a.H, a.doutput, a.doutput_row_stride, a.output,
                   a.output_row_stride, nullptr, a.dbias, nullptr},
                  partial, stream);
}

// --- One arithmetic ------------------------------------------------------------------------------

template <class Math>
cudaError_t forward(const LinearTanhForward& a, void* stream) {
  return multiply<Math, Kind::forward>(forward_product<typename Math::type>(a),
                                       choose<Math, Kind::forward>(a.N, a.H, 1), stream);
}

template <class Math>
cudaError_t backward(const LinearTanhBackward& a, void* stream) {
  using T = typename Math::type;
  cudaError_t error = cudaSuccess;
  if (a.dinput && a.N * a.K > 0)
    error = multiply<Math, Kind::dinput>(dinput_product<T>(a),
                                         choose<Math, Kind::dinput>(a.N, a.K, 1), stream);
  if (error != cudaSuccess || a.H == 0) return error;
  if (!a.dweight || a.K == 0)
    return a.dbias ? dbias_alone<T>(a, static_cast<acc_t<T>*>(a.workspace), stream) : cudaSuccess;
  const DweightPlan plan = dweight_plan<Math>(a);
  Product<T> p = dweight_product<T>(a, plan);
  p.sum_bias = a.dbias != nullptr, p.dbias = static_cast<T*>(a.dbias);
  error = multiply<Math, Kind::dweight>(p, plan.size, stream);
  if (error != cudaSuccess || p.pieces == 1) return error;
  return add_pieces<T>(p.output, a.H * a.K, p.dbias, p.dbias ? a.H : 0, p.partial, p.pieces,
                       p.partial_stride, stream);
}

cudaError_t plain_backward(const LinearTanhBackward& a, void* stream) {
  cudaError_t error = cudaSuccess;
  if (a.dinput) error = launch_plain<Kind::dinput>(dinput_product<double>(a), stream);
  if (error != cudaSuccess || a.H == 0) return error;
  double* partial = static_cast<double*>(a.workspace);
  if (a.dbias) error = dbias_alone<double>(a, partial, stream);
  if (error != cudaSuccess || !a.dweight || a.K == 0) return error;
  Product<double> p = dweight_product<double>(a, plain_dweight_plan(a));
  p.partial = partial + slope_elements(a.N, a.H);
  error = launch_plain<Kind::dweight>(p, stream);
  if (error != cudaSuccess || p.pieces == 1) return error;
  return add_pieces<double>(p.output, a.H * a.K, nullptr, 0, p.partial, p.pieces, p.partial_stride,
                            stream);
}

// body(Math{}) for all but float64.
template <class Body>
auto for_math(DType dtype, bool tf32, const Body& body) {
  if (dtype == DType::bf16) return body(Half<bf16>{});
  if (dtype == DType::f16) return body(Half<f16>{});
  return tf32 ? body(Tf32{}) : body(Split{});
}

}  // namespace

// --- Launchers -----------------------------------------------------------------------------------

int linear_tanh_forward(const LinearTanhForward& a, void* stream) {
  if (a.N * a.H == 0) return cudaSuccess;
  if (a.dtype == DType::f64) return launch_plain<Kind::forward>(forward_product<double>(a), stream);
  return for_math(a.dtype, a.tf32, [&](auto math) { return forward<decltype(math)>(a, stream); });
}

size_t linear_tanh_forward_workspace(const LinearTanhForward&) { return 0; }

int linear_tanh_backward(const LinearTanhBackward& a, void* stream) {
  if (a.dtype == DType::f64) return plain_backward(a, stream);
  return for_math(a.dtype, a.tf32, [&](auto math) { return backward<decltype(math)>(a, stream); });
}

size_t linear_tanh_backward_workspace(const LinearTanhBackward& a) {
  if (a.H == 0) return 0;
  const bool weights = a.dweight && a.K > 0;
  const size_t slope_bytes = slope_elements(a.N, a.H) * (a.dtype == DType::f64 ? 8 : 4);
  if (!weights) return a.dbias ? slope_bytes : 0;
  if (a.dtype == DType::f64) {
    const DweightPlan plan = plain_dweight_plan(a);
    const int64_t partials = plan.pieces.count > 1 ? plan.pieces.count : 0;
    return slope_bytes + partials * plan.partial_stride * sizeof(double);
  }
  const DweightPlan plan =
      for_math(a.dtype, a.tf32, [&](auto math) { return dweight_plan<decltype(math)>(a); });
  return plan.pieces.count > 1 ? plan.pieces.count * plan.partial_stride * sizeof(float) : 0;
}

int linear_tanh_epilogue(const LinearTanhEpilogue& a, void* stream) {
  return for_dtype(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    T* output = static_cast<T*>(a.output);
    const T* bias = static_cast<const T*>(a.bias);
    const auto run = [&](auto items) {
      constexpr int kItems = decltype(items)::value;
      const int64_t column_blocks = ceil_div(a.H, 32 * kItems);
      const int64_t all = ceil_div(a.N, kElementRows), most = ceil_div(8 * 1024, column_blocks + 1);
      const int64_t row_blocks = all < most ? all : most;
      return launch<linear_tanh_epilogue_kernel<T, kItems>>(
          row_blocks * column_blocks, kElementThreads, 0, stream, output, bias, a.N, a.H,
          row_blocks, static_cast<unsigned>(column_blocks));
    };
    return vector_items(sizeof(T), {output}, {a.H}) == kVectorItems<T>
               ? run(std::integral_constant<int, kVectorItems<T>>{})
               : run(std::integral_constant<int, 1>{});
  });
}

size_t linear_tanh_epilogue_workspace(const LinearTanhEpilogue&) { return 0; }

int linear_tanh_slope(const LinearTanhSlope& a, void* stream) {
  if (a.H == 0) return cudaSuccess;
  return for_dtype(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    return slope<T>(a, static_cast<acc_t<T>*>(a.workspace), stream);
  });
}

size_t linear_tanh_slope_workspace(const LinearTanhSlope& a) {
  return a.dbias ? slope_elements(a.N, a.H) * (a.dtype == DType::f64 ? 8 : 4) : 0;
}

}  // namespace mlpkern::cuda
