// train_steps of narrow models: one hidden layer, at most 256 units, 32 inputs T*D and 32 classes.
//
// A warp owns 16 hidden units and their rows of both weights, which no other warp reads, so that it
// needs no barrier between hidden layer, logits and weight gradients. A batch is processed in
// blocks of 32 rows:
//
//   forward    every warp: h of its units (32, 16), its part of the logits        | barrier
//   loss       rows distributed over warps: sum of the parts, softmax, dlogits    | barrier
//   backward   every warp: dz, its part of dx, its weights' gradients and update   | barrier
//   dx         rows distributed over warps: sum of the parts                      | barrier
//   embedding  tiles distributed over warps: its gradient, a product with ones where ids are equal
//              instead of atomics, and update                                     | barrier
//   gather     x of the next block of rows                                        | barrier
//
// All products are mma.sync on the float32 weights in shared memory. Results of one product are
// operands of the next without leaving the registers (device/mma_fragments.cuh). Row numbers are
// loaded two blocks of rows ahead, ids one. Gradients that are clipped or summed over several
// blocks of rows (`sums`) are kept in the workspace until the last block.
#pragma once

#include "cuda/device/launch.cuh"
#include "cuda/model/narrow/embedding.cuh"

namespace mlpkern::cuda {
namespace {

// The most threads of a block. With 99 KB of shared memory a block has at most nine warps: a thread
// then may have more registers, which TF32 on sm_120 needs.
template <class Math>
constexpr int kNarrowThreads = kWarp *
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
                               (Math::kSplit ? kNarrowMostWarps : 12);
#else
                               kNarrowMostWarps;
#endif

// One thread of the block that trains one model.
template <class Math, bool sums>
class NarrowTrainer : NarrowEmbedding {
 public:
  __device__ __forceinline__ NarrowTrainer(const TrainingRun& run, float* shared)
      : NarrowEmbedding(run, shared, sums) {}

  __device__ __forceinline__ void train() {
    int64_t s = 0;
    if (r_.stopped[m_] < 0) {
      load();
      begin();
      for (; s < r_.S; ++s)
        if (!step(s)) {
          if (l_.thread == 0) r_.stopped[m_] = r_.step + s;
          ++s;
          break;
        }
      cp_async_wait<0>();  // the constants of the step after a stop
      m_ = block_anew();
      store();
    }
    for (s += threadIdx.x; s < r_.S; s += blockDim.x) *loss_of(s) = NAN;
  }

 private:
  __device__ __forceinline__ void begin() {
    if (l_.thread == 0) {
      dropouts()[0] = r_.dropout(m_, 0), dropouts()[1] = r_.dropout(m_, 1);
      *constants(0) = r_.constants[int64_t{m_} * r_.S];
    }
    const Block first{0, 0}, second = after<sums>(first);
    const int row = load_row(first);
    for (int p = l_.warp; p <= z_.T; p += at_.warps) ids(0, p)[l_.lane] = load_symbol(row, p);
    if (l_.warp == 0 && second.s < r_.S) rows()[l_.lane] = load_row(second);
    __syncthreads();
    gather<Math>(first, 0);
    __syncthreads();
  }

  // False if its loss is not finite: then nothing has changed.
  __device__ __forceinline__ bool step(int64_t s) {
    bool finite = true;
    if (l_.thread == 0 && s + 1 < r_.S) load_constants(s + 1);
    for (int b = 0; b < blocks<sums>(); ++b) {
      l_ = Lane();
      const Block here{s, b}, next = after<sums>(here), following = after<sums>(next);
      const bool last = b + 1 == blocks<sums>(), more = next.s < r_.S;
      // Both loads are in flight while the block works.
      const int next_symbol = more && l_.warp <= z_.T ? load_symbol(rows()[l_.lane], l_.warp) : 0;
      int following_row = 0;
      if (l_.warp == 0 && following.s < r_.S) following_row = load_row(following);

      float y[kRowTiles][kUnitTiles][4];  // tanh
      hidden<Math>(y);
      const Kept kept = draw(here);
      logits<Math>(y, kept);
      __syncthreads();  // the parts of the logits
      loss(last ? static_cast<int>(r_.N - b * kNarrowRows) : kNarrowRows);
      __syncthreads();  // dlogits, losses
      const float loss = s_[at_.losses + l_.lane];
      finite = finite && __all_sync(kAllLanes, isfinite(loss));
      if (l_.warp == 0) add_loss<sums>(loss, b == 0, last ? loss_of(s) : nullptr);
      if (last && !finite) return false;
      if constexpr (sums) l_ = Lane();
      backward(y, kept, {constants(s), b == 0, last && !(sums && r_.clips())});
      l_ = Lane();
      __syncthreads();  // the parts of dx
      if (trains_embedding()) sum_dx(here);
      __syncthreads();  // dx
      if (trains_embedding()) {
        if (!sums || (last && !r_.clips()))
          for_rule(r_.rule.rule, [&, c = *constants(s)](auto is) {
            update_embedding<decltype(is)::rule>(c, b == 0);
          });
        else
          add_embedding_gradient(b == 0);
      }
      if (sums && last && r_.clips()) clip(*constants(s));
      if (more) {
        if (l_.warp <= z_.T) ids(buffer_ ^ 1, l_.warp)[l_.lane] = next_symbol;
        for (int p = l_.warp + at_.warps; p <= z_.T; p += at_.warps)
          ids(buffer_ ^ 1, p)[l_.lane] = load_symbol(rows()[l_.lane], p);
      }
      if (last) cp_async_wait<0>();
      __syncthreads();  // embedding, ids, constants; the row numbers have been read
      buffer_ ^= 1;
      if (l_.warp == 0) rows()[l_.lane] = following_row;
      if (more) gather<Math>(next, buffer_);
      __syncthreads();  // x
    }
    return true;
  }

  // dlogits are finite: if a loss is not, the step ends and nothing uses the gradients.
  __device__ __forceinline__ void backward(float (&y)[kRowTiles][kUnitTiles][4], const Kept& kept,
                                           const Use& use) {
    float dz[kRowTiles][kUnitTiles][4];
    product<Math, Values::finite>(dz, s_ + at_.dlogits, s_ + at_.w2);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) {
        float h[4];
        read(h, y[m][n], kept, m, n);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          if (hidden_drops_) dz[m][n][r] *= kept.factor(m, n, r);
          dz[m][n][r] *= 1.0f - y[m][n][r] * y[m][n][r];
          y[m][n][r] = Math::template rounded<Values::finite>(h[r]);
        }
      }
    keep(y);
    use_bias_gradients<sums>(dz, use);
    __syncwarp();
    float gradient[kNarrowDepth][4];
    weight_gradient<Math, Values::finite>(gradient, s_ + at_.dlogits);
    use_gradient<sums>(kW2, gradient, use);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n)
#pragma unroll
        for (int r = 0; r < 4; ++r) dz[m][n][r] = Math::template rounded<Values::any>(dz[m][n][r]);
    __syncwarp();
    keep(dz);
    __syncwarp();
    weight_gradient<Math, Values::rounded>(gradient, s_ + at_.x);
    __syncwarp();
    if (trains_embedding()) dx_part<Math>(dz);
    __syncwarp();  // w1 has been read
    use_gradient<sums>(kW1, gradient, use);
  }

  __device__ __forceinline__ bool trains_embedding() const { return !r_.is_frozen(0); }

  // ---- clipping; the gradients of frozen tensors were not stored, the embedding's are zero ----

  // body(element in the workspace, unit or class) for the bias gradients that this thread stored.
  template <class Body>
  __device__ __forceinline__ void for_biases(const Body& body) {
    if (l_.g == 0 && !r_.is_frozen(tensor_of(kB1)))
      for (int n = 0; n < kNarrowUnits; n += 8)
        for (int i = n + 2 * l_.t; i < n + 2 * l_.t + 2; ++i) body(kB1, b1_sums()[i], unit0() + i);
    if (l_.warp + 1 == at_.warps && !r_.is_frozen(tensor_of(kB2)))
      body(kB2, b2_sums()[l_.lane], l_.lane);
  }

  // The parameters that the vectors of sums of a lane belong to.
  __device__ __forceinline__ static Weight weight_of(int j) { return j < kNarrowDepth ? kW1 : kW2; }

  // Updates all parameters with the gradients scaled to a norm of at most max_grad_norm.
  __device__ __forceinline__ void clip(const StepConstants c) {
    l_ = Lane();
    double squares = 0;
    const auto add = [&](float x) { squares += static_cast<double>(x) * x; };
    __syncthreads();  // the gradient of the embedding
    const int threads = static_cast<int>(blockDim.x), thread = l_.thread;
    for (int i = thread; i < z_.V * z_.D; i += threads) add(s_[at_.dembedding + i]);
    for (int j = 0; j < 2 * kNarrowDepth; ++j) {  // of w1, then of w2
      if (r_.is_frozen(tensor_of(weight_of(j)))) continue;
      const float4 sum = weight_sums(kW1)[j * kWarp];
      add(sum.x), add(sum.y), add(sum.z), add(sum.w);
    }
    for_biases([&](Bias, float sum, int) { add(sum); });
    const double norm = sqrt(block_sum(squares, reinterpret_cast<double*>(s_ + at_.norms)));
    const double most = r_.max_grad_norm / (norm + 1e-6);
    const float scale = most < 1 ? static_cast<float>(most) : 1.0f;
    for_rule(r_.rule.rule, [&](auto is) {
      constexpr Rule rule = decltype(is)::rule;
      for (int i = thread; trains_embedding() && i < z_.V * z_.D; i += threads)
        update<rule>(c, s_[at_.embedding + i], scale * s_[at_.dembedding + i], 0, i, true);
#pragma unroll 1
      for (int j = 0; j < 2 * kNarrowDepth; ++j) {
        const Weight which = weight_of(j);
        if (r_.is_frozen(tensor_of(which))) continue;
        const float4 sum = weight_sums(kW1)[j * kWarp];
        const float gradient[4] = {scale * sum.x, scale * sum.y, scale * sum.z, scale * sum.w};
        update_tile<rule, sums>(which, j % kNarrowDepth, gradient, c);
      }
      for_biases(
          [&](Bias which, float sum, int i) { update_bias<rule>(which, i, scale * sum, c); });
    });
  }
};

template <class Math, bool sums>
__global__ void __launch_bounds__(kNarrowThreads<Math>, 1)
    train_steps_narrow_kernel(TrainingRun run) {
  NarrowTrainer<Math, sums>(run, dynamic_shared<float>()).train();
}

// body(Kernel<...>{}) for the kernel that the options choose.
template <class Body>
auto for_narrow_kernel(const TrainSteps& a, const Body& body) {
  const bool sums = narrow_sums(a.N, a.max_grad_norm < INFINITY);
  if (a.tf32)
    return sums ? body(Kernel<train_steps_narrow_kernel<Tf32, true>>{})
                : body(Kernel<train_steps_narrow_kernel<Tf32, false>>{});
  return sums ? body(Kernel<train_steps_narrow_kernel<Split, true>>{})
              : body(Kernel<train_steps_narrow_kernel<Split, false>>{});
}

inline size_t narrow_limit(const TrainSteps& a) {
  return for_narrow_kernel(a, [](auto kernel) { return shared_limit<decltype(kernel)::value>(); });
}

inline cudaError_t launch_narrow(const TrainSteps& a, const TrainingRun& run, void* stream) {
  const NarrowLayout layout(run.sizes, narrow_sums(run.N, run.clips()));
  return for_narrow_kernel(a, [&](auto kernel) {
    return launch<decltype(kernel)::value>(a.model.M, static_cast<unsigned>(layout.warps * kWarp),
                                           layout.total * sizeof(float), stream, run);
  });
}

}  // namespace
}  // namespace mlpkern::cuda
