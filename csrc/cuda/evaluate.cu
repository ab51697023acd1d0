// evaluate on a GPU: mean loss and accuracy of M models over all rows, in float32 with the products
// of Tf32 or Split.
//
// A block holds the parameters of one model in shared memory and goes through pieces of kPieceRows
// rows, 32 rows at a time (model/block/forward.cuh), with L + 3 barriers. It writes the sums of a
// piece in float64 to the workspace, (M, pieces, 2), and a second kernel adds them in a fixed
// order, so the bits do not depend on how many blocks share the pieces of a model.
//
// Compile alone:
// nvcc -std=c++17 -arch=sm_90 -Icsrc -Xptxas -v -cubin csrc/cuda/evaluate.cu
#include "cuda/device/launch.cuh"
#include "cuda/library.h"
#include "cuda/model/block/forward.cuh"
#include "cuda/model/block/ids.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kPieceRows = 1024;
static_assert(kPieceRows % kBlockRows == 0);

// The sum of the losses, then the number of right predictions.
struct Sums {
  double loss, right;
};

struct Evaluation {
  ModelSizes sizes;
  ModelTensors parameters;
  Examples examples;
  int64_t pieces;
  Sums* sums;  // (M, pieces)
};

// One thread of a block that evaluates a model.
template <class Math>
class BlockEvaluator {
 public:
  __device__ __forceinline__ BlockEvaluator(const Evaluation& evaluation, const BlockLayout& layout,
                                            float* shared)
      : e_(evaluation), b_(evaluation.sizes, layout, shared), next_(evaluation.sizes.T) {}

  __device__ __forceinline__ void run() {
    const int64_t model = blockIdx.x;
    int64_t piece = blockIdx.y;
    b_.clear();
    next_.begin(rows_from(piece * kPieceRows), RowOf{piece * kPieceRows});
    next_.load(e_.examples);
    __syncthreads();
    b_.load(0, e_.parameters, model);
    next_.store(e_.examples, rows_from(piece * kPieceRows), RowOf{piece * kPieceRows}, ids(0));
    __syncthreads();
    for (; piece < e_.pieces; piece += gridDim.y) {
      Sums sums{0, 0};
      const int64_t end = (piece + 1) * kPieceRows;
      for (int64_t row = piece * kPieceRows; row < end && row < e_.examples.rows;
           row += kBlockRows) {
        const bool last = row + kBlockRows == end;
        add(last ? (piece + gridDim.y) * kPieceRows : row + kBlockRows, &sums);
      }
      if (threadIdx.x == 0) e_.sums[model * e_.pieces + piece] = sums;
    }
  }

 private:
  struct RowOf {
    int64_t first;
    __device__ __forceinline__ int64_t operator()(int n) const { return first + n; }
  };
  __device__ __forceinline__ int rows_from(int64_t row) const {
    return static_cast<int>(min(max(e_.examples.rows - row, int64_t{0}), int64_t{kBlockRows}));
  }
  __device__ __forceinline__ int* ids(int turn) const {
    return reinterpret_cast<int*>(b_.s + b_.at.ids) + turn * kBlockRows * (b_.z.T + 1);
  }

  // Adds the sums of the rows whose ids are in shared memory, in thread 0; fetches the ids of the
  // block of rows at `next` meanwhile.
  __device__ __forceinline__ void add(int64_t next, Sums* sums) {
    const int* const here = ids(turn_);
    b_.gather(here, BlockDropout{});
    __syncthreads();
    next_.begin(rows_from(next), RowOf{next});
    next_.load(e_.examples);
    for (int layer = 0; layer < b_.z.L; ++layer) {
      b_.hidden(layer, BlockDropout{});
      __syncthreads();
    }
    b_.logits();
    __syncthreads();
    unsigned right = 0;  // a bit for each row of this warp
    for (int i = 0; i < kBlockRows / kBlockWarps; ++i)
      right |= unsigned{is_right(b_.warp + i * kBlockWarps, here)} << i;
    turn_ ^= 1;
    next_.store(e_.examples, rows_from(next), RowOf{next}, ids(turn_));
    sums->right += __syncthreads_count(right >> b_.l.lane & 1);
    if (b_.warp == 0) sums->loss += warp_sum(double{b_.s[b_.at.row_losses + b_.l.lane]});
  }

  // Whether the target of row n is the first class with the largest logit; writes its loss. A row
  // past the end has a target of -1, which is no class.
  __device__ __forceinline__ bool is_right(int n, const int* ids) const {
    const int target = ids[n * (b_.z.T + 1) + b_.z.T];
    const float* const z_n = b_.read(b_.z.L + 1) + n * b_.layer(b_.z.L + 1).stride;
    const auto p = b_.softmax(n);
    float loss = 0.0f;
    int best = b_.z.C;
    for (int c = b_.l.lane; c < b_.z.C; c += kWarp) {
      if (c == target) loss = logf(p.sum) - (z_n[c] - p.largest);
      if (z_n[c] == p.largest) best = min(best, c);
    }
    loss = warp_sum(loss);
    best = warp_reduce(best, Smaller{});
    if (b_.l.lane == 0) b_.s[b_.at.row_losses + n] = loss;
    return best == target;
  }
  struct Smaller {
    __device__ __forceinline__ int operator()(int a, int b) const { return min(a, b); }
  };

  const Evaluation& e_;
  const BlockModel<Math> b_;
  BlockIds next_;
  int turn_ = 0;  // which of two arrays has the ids of the block of rows
};

template <class Math>
__global__ void __launch_bounds__(kBlockThreads, 1)
    evaluate_kernel(const __grid_constant__ Evaluation evaluation,
                    const __grid_constant__ BlockLayout layout) {
  BlockEvaluator<Math>(evaluation, layout, dynamic_shared<float>()).run();
}

// One warp per model.
__global__ void __launch_bounds__(kWarp)
    evaluate_mean_kernel(const Sums* sums, int64_t pieces, int64_t rows, double* loss,
                         double* accuracy) {
  const int64_t model = blockIdx.x;
  Sums all{0, 0};
  for (int64_t piece = threadIdx.x; piece < pieces; piece += kWarp) {
    all.loss += sums[model * pieces + piece].loss;
    all.right += sums[model * pieces + piece].right;
  }
  all.loss = warp_sum(all.loss);
  all.right = warp_sum(all.right);
  if (threadIdx.x == 0) {
    loss[model] = all.loss / static_cast<double>(rows);
    accuracy[model] = all.right / static_cast<double>(rows);
  }
}

int64_t pieces_of(const Evaluate& a) { return (a.examples.rows + kPieceRows - 1) / kPieceRows; }

BlockLayout layout_of(const Evaluate& a) {
  const size_t limit =
      a.tf32 ? shared_limit<evaluate_kernel<Tf32>>() : shared_limit<evaluate_kernel<Split>>();
  return block_layout(model_sizes(a.model), {false, 0}, limit);
}

}  // namespace

ModelPath evaluate_path(const Evaluate& a) {
  const bool fits = a.model.dtype == DType::f32 && sizes_fit(a.model) && layout_of(a).fits;
  return fits ? ModelPath::block : ModelPath::none;
}

size_t evaluate_workspace(const Evaluate& a) {
  return static_cast<size_t>(a.model.M * pieces_of(a)) * sizeof(Sums);
}

int evaluate(const Evaluate& a, void* stream) {
  if (evaluate_path(a) == ModelPath::none) return cudaErrorInvalidValue;
  const BlockLayout layout = layout_of(a);
  Evaluation e{};
  e.sizes = model_sizes(a.model);
  e.parameters = model_tensors(a.model.parameters, a.model.model_strides, a.model.L);
  e.examples = a.examples;
  e.pieces = pieces_of(a);
  e.sums = static_cast<Sums*>(a.workspace);
  // Every block loads its model first, so there are no more blocks than run at once.
  const int64_t share = a.model.M > 0 ? (multiprocessors() + a.model.M - 1) / a.model.M : 0;
  const Blocks blocks(a.model.M, share < e.pieces ? share : e.pieces);
  const size_t bytes = layout.total * sizeof(float);
  const cudaError_t error =
      a.tf32 ? launch<evaluate_kernel<Tf32>>(blocks, kBlockThreads, bytes, stream, e, layout)
             : launch<evaluate_kernel<Split>>(blocks, kBlockThreads, bytes, stream, e, layout);
  if (error != cudaSuccess) return error;
  return launch<evaluate_mean_kernel>(a.model.M, kWarp, 0, stream, static_cast<const Sums*>(e.sums),
                                      e.pieces, a.examples.rows, a.loss, a.accuracy);
}

}  // namespace mlpkern::cuda
