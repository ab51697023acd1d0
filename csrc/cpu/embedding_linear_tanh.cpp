// embedding_linear_tanh on a CPU: output = tanh(x weight^T + bias) with x[n, t*D + d] =
// embedding[input[n, t], d], and its gradients (see kernels.h). x is never stored as a whole.
// One of two ways, chosen by the shape alone:
//
//   folded     many rows and a small table (layer/embedding_fold.h)
//   by blocks  as linear_tanh, with rows gathered from the table while a block is packed. The
//              backward forms dx of a chunk of the batch at a time; embedding_gather sums it.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx2 -march=haswell -c csrc/cpu/embedding_linear_tanh.cpp
#include "cpu/layer/embedding_fold_backward.h"
#include "cpu/layer/embedding_fold_forward.h"
#include "cpu/layer/linear_tanh_backward.h"
#include "cpu/layer/linear_tanh_forward.h"
#include "cpu/vector/ids.h"

namespace mlpkern::cpu::MLPKERN_ISA {

MLPKERN_KERNELS(MLPKERN_DECLARE_KERNEL)

namespace {

// Elements of dx in a chunk: 8 MB of float32 stay in the last-level cache. With a larger table a
// chunk is as large as the table, so that its pass over dembedding costs no more than its dx.
constexpr int64_t kChunkElements = 1 << 21;

// to[i * row_step + t*D + d] = embedding[input[first + i, t], d] for i < rows. May write one vector
// past a row. Returns -1, or the flat position of the first bad id.
template <class T, class Args>
int64_t gather_rows(acc_t<T>* to, int64_t row_step, const Args& a, int64_t first, int64_t rows) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const T* embedding = static_cast<const T*>(a.embedding);
  const T* end = a.V ? embedding + (a.V - 1) * a.embedding_row_stride + a.D : embedding;
  return visit_ids(a, first, rows, [&](int64_t i, int64_t t, int64_t id) {
    A* row = to + i * row_step + t * a.D;
    const T* from = embedding + id * a.embedding_row_stride;
    for (int64_t d = 0; d < a.D; d += L)
      store(row + d, end - from >= d + L ? load(from + d) : load_part(from + d, a.D - d));
  });
}

// ---------------------------------------------------------------------------------- forward

LinearTanhForward layer_of(const EmbeddingLinearTanhForward& a) {
  LinearTanhForward layer{};
  layer.dtype = a.dtype;
  layer.N = a.N, layer.K = a.T * a.D, layer.H = a.H;
  layer.weight = a.weight, layer.weight_row_stride = a.weight_row_stride;
  layer.bias = a.bias;
  layer.output = a.output;
  layer.workspace = a.workspace;
  return layer;
}

template <class T>
int64_t forward_by_blocks(const EmbeddingLinearTanhForward& a) {
  int64_t bad = -1;
  linear_tanh_forward_by_blocks<T>(
      layer_of(a), [&](acc_t<T>* rows, int64_t row_step, int64_t first, int64_t count) {
        const int64_t found = gather_rows<T>(rows, row_step, a, first, count);
        if (found >= 0) report_first(&bad, found);
        return found < 0;
      });
  return bad;
}

// ---------------------------------------------------------------------------------- backward

struct ChunkPlan {
  int64_t rows, chunks;
  bool sums;             // dembedding is summed in scratch, not in place
  int64_t dx, row_sums;  // elements
};

ChunkPlan plan_chunks(const EmbeddingLinearTanhBackward& a) {
  ChunkPlan p;
  const int64_t K = a.T * a.D, most = a.V * a.D > kChunkElements ? a.V * a.D : kChunkElements;
  const int64_t chunk = most / (K > 0 ? K : 1);
  const bool whole = !a.dembedding || a.N <= chunk || a.N <= kMaxBlockRows;
  p.rows = whole ? a.N : chunk > kMaxBlockRows ? chunk : kMaxBlockRows;
  p.chunks = whole ? 1 : ceil_div(a.N, p.rows);
  const bool half = a.dtype == DType::bf16 || a.dtype == DType::f16;
  p.sums = a.dembedding && (half || p.chunks > 1);
  p.dx = a.dembedding ? p.rows * K : 0;
  p.row_sums = p.sums ? a.V * a.D : 0;
  return p;
}

// The arguments of the layer's gradients; a dinput that is not null only says to compute dx.
LinearTanhBackward layer_of(const EmbeddingLinearTanhBackward& a, const ChunkPlan& p) {
  LinearTanhBackward layer{};
  layer.dtype = a.dtype;
  layer.N = p.rows, layer.K = a.T * a.D, layer.H = a.H;
  layer.doutput = a.doutput, layer.doutput_row_stride = a.doutput_row_stride;
  layer.output = a.output, layer.output_row_stride = a.output_row_stride;
  layer.weight = a.weight, layer.weight_row_stride = a.weight_row_stride;
  layer.dinput = a.dembedding, layer.dweight = a.dweight, layer.dbias = a.dbias;
  return layer;
}

// The embedded rows of the block of each worker.
struct BlockScratch {
  int64_t row_step, block, workers;  // elements, the latter of one worker

  explicit BlockScratch(const LinearTanhBackward& layer) {
    const LinearTanhBackwardPlan p = plan(layer);
    row_step = row_step_for(layer.dtype, layer.K);
    block = (p.block_rows + 1) * row_step;  // gather_rows may write past a row
    workers = clamp(p.pieces, 1, kMaxWorkers);
  }
};

DType acc_of(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// The arguments that add dx of a chunk of the batch, from row `first` on, to dembedding.
EmbeddingGatherBackward row_sums_of(const EmbeddingLinearTanhBackward& a, int64_t first,
                                    int64_t rows) {
  EmbeddingGatherBackward sums{};
  sums.dtype = acc_of(a.dtype);
  sums.index_type = a.index_type;
  sums.N = rows, sums.T = a.T, sums.V = a.V, sums.D = a.D;
  const int64_t id_bytes = a.index_type == IndexType::u8    ? 1
                           : a.index_type == IndexType::i16 ? 2
                           : a.index_type == IndexType::i32 ? 4
                                                            : 8;
  sums.input = static_cast<const char*>(a.input) + first * a.input_row_stride * id_bytes;
  sums.input_row_stride = a.input_row_stride, sums.input_col_stride = a.input_col_stride;
  sums.doutput_row_stride = a.T * a.D;
  sums.padding_idx = -1;
  return sums;
}

// to[i] = x[i], or += where add is set
template <class T, class A>
void move_sums(T* to, const A* x, int64_t count, bool add) {
  constexpr int64_t L = kLanes<A>;
  parallel_for_work(ceil_div(count, 1 << 14), 8 * count, [&](int64_t piece) {
    const int64_t begin = piece << 14, end = count < begin + (1 << 14) ? count : begin + (1 << 14);
    for (int64_t i = begin; i < end; i += L) {
      const int64_t lanes = end - i < L ? end - i : L;
      vec_t<A> sum = load_part(x + i, lanes);
      if (add) sum += load_part(to + i, lanes);
      store_part(to + i, sum, lanes);
    }
  });
}

template <class T>
int64_t backward_by_blocks(const EmbeddingLinearTanhBackward& a) {
  using A = acc_t<T>;
  const ChunkPlan p = plan_chunks(a);
  const int64_t K = a.T * a.D;
  LinearTanhBackward layer = layer_of(a, p);
  char* next = static_cast<char*>(a.workspace);
  layer.workspace = next;
  Scratch<A> scratch{next + round_up(workspace(layer), 64)};
  A* dx = scratch.take(p.dx);
  A* chunk_sums = scratch.take(p.row_sums);
  A* total = scratch.take(p.row_sums);
  const BlockScratch x_scratch(layer);
  A* x = scratch.take(x_scratch.workers * x_scratch.block);
  void* launcher_scratch = scratch.take(0);

  LinearTanhGradients<T> gradients(layer);
  int64_t bad = -1;
  for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
    const int64_t first = chunk * p.rows;
    const int64_t rows = a.N - first < p.rows ? a.N - first : p.rows;
    gradients.add_rows(
        first, first + rows,
        [&](int64_t n, int64_t count, int64_t worker) {
          A* block = x + worker * x_scratch.block;
          const int64_t found = a.dweight
                                    ? gather_rows<T>(block, x_scratch.row_step, a, n, count)
                                    : visit_ids(a, n, count, [](int64_t, int64_t, int64_t) {});
          if (found >= 0) report_first(&bad, found);
          return InputBlock<A>{block, found < 0};
        },
        x_scratch.row_step, [&](int64_t n) { return dx + (n - first) * K; });
    if (bad >= 0) return bad;
    if (!a.dembedding) continue;
    EmbeddingGatherBackward sums = row_sums_of(a, first, rows);
    sums.doutput = dx;
    sums.dweight = p.sums ? chunk_sums : a.dembedding;
    sums.workspace = launcher_scratch;
    embedding_gather_backward(sums);
    if (p.chunks > 1) move_sums(total, chunk_sums, a.V * a.D, first > 0);
  }
  gradients.finish();
  if (p.sums)
    move_sums(static_cast<T*>(a.dembedding), p.chunks > 1 ? total : chunk_sums, a.V * a.D, false);
  return -1;
}

}  // namespace

size_t embedding_linear_tanh_forward_workspace(const EmbeddingLinearTanhForward& args) {
  return folds(args) ? fold_workspace(args) : workspace(layer_of(args));
}

int64_t embedding_linear_tanh_forward(const EmbeddingLinearTanhForward& args) {
  if (args.N == 0) return -1;
  return for_dtype(args.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    return folds(args) ? forward_folded<T>(args) : forward_by_blocks<T>(args);
  });
}

size_t embedding_linear_tanh_backward_workspace(const EmbeddingLinearTanhBackward& args) {
  if (folds(args)) return fold_workspace(args);
  const ChunkPlan p = plan_chunks(args);
  const LinearTanhBackward layer = layer_of(args, p);
  const BlockScratch x(layer);
  const int64_t elements = p.dx + 2 * p.row_sums + x.workers * x.block;
  return round_up(workspace(layer), 64) + elements * acc_size(args.dtype) + 256 +
         embedding_gather_backward_workspace(row_sums_of(args, 0, p.rows));
}

int64_t embedding_linear_tanh_backward(const EmbeddingLinearTanhBackward& args) {
  return for_dtype(args.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    return folds(args) ? backward_folded<T>(args) : backward_by_blocks<T>(args);
  });
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
