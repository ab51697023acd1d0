// train_steps of any depth: the warps of a block share the tiles of each product of its model. A
// batch is processed in blocks of 32 rows, with 2 L + 5 barriers each for L hidden layers:
//
//   gather     the input of layer 0, by ids                                       | barrier
//   hidden     layer by layer: 16 columns of a warp, tanh and dropout             | a barrier each
//   logits     tiles (16, 8), sums cut into parts where there are few tiles       | barrier
//   loss       rows distributed over warps: softmax, gradient of the logits       | barrier
//   backward   layers L ... 1: gradients of weight, bias and input                | a barrier each
//              layer 0: the gradient of its input                                 | barrier
//              weight and bias of layer 0, embedding                              | barrier
//
// If the batch is one block of rows and gradients are not clipped, parameters are updated as soon
// as their gradient is known (update.cuh). Otherwise the gradients of all blocks of rows are
// summed, and one pass over all parameters ends the step: 1 more barrier, 2 with the norm of the
// gradients. Row numbers and ids of the next block of rows are fetched meanwhile.
#pragma once

#include "cuda/device/launch.cuh"
#include "cuda/model/block/backward.cuh"
#include "cuda/model/block/ids.cuh"

namespace mlpkern::cuda {
namespace {

// One thread of the block that trains one model.
template <class Math>
class BlockTrainer {
 public:
  __device__ __forceinline__ BlockTrainer(const TrainingRun& run, const BlockLayout& layout,
                                          float* shared)
      : r_(run),
        model_(blockIdx.x),
        u_(run, BlockModel<Math>(run.sizes, layout, shared), model_),
        next_(run.sizes.T) {}

  __device__ __forceinline__ void run() {
    if (r_.stopped[model_] >= 0) {
      no_losses_from(0);
      return;
    }
    begin();
    int64_t s = 0;
    while (s < r_.S && step(s)) ++s;
    if (s < r_.S) {
      no_losses_from(s + 1);
      if (threadIdx.x == 0) r_.stopped[model_] = r_.step + s;
    }
    end();
  }

 private:
  __device__ __forceinline__ void begin() {
    u_.b.clear();
    u_.clear();
    const RowOf row_of{r_, model_, 0, 0};
    const int rows = min(static_cast<int>(r_.N), kBlockRows);
    next_.begin(rows, row_of);
    next_.load(r_.examples);
    __syncthreads();
    if (threadIdx.x < 2)
      dropouts()[threadIdx.x] = r_.dropout(model_, static_cast<int>(threadIdx.x));
    u_.b.load(0, r_.parameters, model_);
    if (u_.b.at.moments >= 0) {
      u_.b.load(u_.b.at.moments, r_.first, model_);
      if (moments_of(r_.rule.rule) > 1)
        u_.b.load(u_.b.at.moments + u_.b.at.parameters, r_.second, model_);
    }
    next_.store(r_.examples, rows, row_of, ids(0));
    __syncthreads();
  }

  __device__ __forceinline__ void end() {
    u_.b.store(0, r_.parameters, model_, r_.frozen);
    if (u_.b.at.moments < 0) return;
    u_.b.store(u_.b.at.moments, r_.first, model_, r_.frozen);
    if (moments_of(r_.rule.rule) > 1)
      u_.b.store(u_.b.at.moments + u_.b.at.parameters, r_.second, model_, r_.frozen);
  }

  // False if the loss is not finite; then nothing has changed.
  __device__ __forceinline__ bool step(int64_t s) {
    bool finite = true;
    if (threadIdx.x == 0) {
      cp_async<16>(&constants(), r_.constants + model_ * r_.S + s, 16);
      loss() = 0;
    }
    cp_async_commit();
    const int N = static_cast<int>(r_.N);
    for (int begin = 0; begin < N; begin += kBlockRows) {
      u_.begin(begin == 0);
      finite = block_of_rows(s, begin, finite);
      if (!finite && !u_.sums()) break;
    }
    if (finite && u_.sums()) {
      u_.step_with_sums(u_.b.s + u_.b.at.row_losses);
      __syncthreads();
    }
    if (threadIdx.x == 0)
      r_.losses[model_ * r_.S + s] = static_cast<float>(loss() / static_cast<double>(r_.N));
    return finite;
  }

  // Adds the losses of the block of rows at `begin` of batch s and computes their gradients.
  __device__ __forceinline__ bool block_of_rows(int64_t s, int begin, bool finite) {
    const int* const here = ids(turn_);

    u_.b.gather(here, {dropouts(), 0, s, begin});
    __syncthreads();
    next_.begin(next_rows(s, begin), next_row_of(s, begin));
    for (int layer = 0; layer < u_.b.z.L; ++layer) {
      u_.b.hidden(layer, {dropouts() + 1, static_cast<uint32_t>(layer), s, begin});
      __syncthreads();
    }
    u_.b.logits();
    __syncthreads();
    next_.load(r_.examples);
    bool rows_finite = true;
#pragma unroll 1
    for (int n = u_.b.warp; n < kBlockRows; n += kBlockWarps) rows_finite &= loss_of(n, here);
    cp_async_wait<0>();  // for the constants of the step
    finite &= !__syncthreads_or(!rows_finite);
    if (u_.b.warp == 0) {
      const double sum = warp_sum(double{u_.b.s[u_.b.at.row_losses + u_.b.l.lane]});
      if (threadIdx.x == 0) loss() += sum;
    }
    if (!finite && !u_.sums()) return false;
    BlockBackward<Math>(u_, here, dropouts()).run();
    turn_ ^= 1;
    next_.store(r_.examples, next_rows(s, begin), next_row_of(s, begin), ids(turn_));
    __syncthreads();
    return finite;
  }

  // Row n of the logits becomes their gradient.
  __device__ __forceinline__ bool loss_of(int n, const int* ids) const {
    const int C = u_.b.z.C, lane = u_.b.l.lane, target = ids[n * (u_.b.z.T + 1) + u_.b.z.T];
    float* const z_n = u_.b.read(u_.b.z.L + 1) + n * u_.b.layer(u_.b.z.L + 1).stride;
    float loss = 0.0f;
    if (target < 0) {
#pragma unroll 1
      for (int c = lane; c < C; c += kWarp) z_n[c] = 0.0f;
    } else {
      const auto p = u_.b.softmax(n);
      const float log_sum = logf(p.sum), share = 1.0f / p.sum;
      const float of_each = r_.label_smoothing / static_cast<float>(C);
      const float of_target = (1.0f - r_.label_smoothing) + of_each;
      const float per_row = 1.0f / static_cast<float>(r_.N);
#pragma unroll 1
      for (int c = lane; c < C; c += kWarp) {
        const float z = z_n[c] - p.largest, wanted = c == target ? of_target : of_each;
        if (wanted > 0.0f) loss += wanted * (log_sum - z);  // 0 * infinity is not 0
        z_n[c] = (expf(z) * share - wanted) * per_row;
      }
      loss = warp_sum(loss);
    }
    if (lane == 0) u_.b.s[u_.b.at.row_losses + n] = loss;
    return fabsf(loss) < INFINITY;
  }

  // The row of the examples for row n of the block of rows at `begin` of batch s.
  struct RowOf {
    const TrainingRun& run;
    int64_t model, s;
    int begin;
    __device__ __forceinline__ int64_t operator()(int n) const {
      return run.batch_row(model, s, begin + n);
    }
  };
  // The block of rows after the one at `begin` of batch s, and how many rows it has.
  __device__ __forceinline__ RowOf next_row_of(int64_t s, int begin) const {
    const bool last = begin + kBlockRows >= r_.N;
    return {r_, model_, last ? s + 1 : s, last ? 0 : begin + kBlockRows};
  }
  __device__ __forceinline__ int next_rows(int64_t s, int begin) const {
    const RowOf next = next_row_of(s, begin);
    return next.s < r_.S ? min(static_cast<int>(r_.N) - next.begin, kBlockRows) : 0;
  }

  __device__ __forceinline__ int* ids(int turn) const {
    return reinterpret_cast<int*>(u_.b.s + u_.b.at.ids) + turn * kBlockRows * (u_.b.z.T + 1);
  }
  // The dropout of the input and of the output of layer 0 in the first step.
  __device__ __forceinline__ Dropout* dropouts() const {
    return reinterpret_cast<Dropout*>(u_.b.s + u_.b.at.dropouts);
  }
  __device__ __forceinline__ StepConstants& constants() const {
    return *reinterpret_cast<StepConstants*>(u_.b.s + u_.b.at.constants);
  }
  __device__ __forceinline__ double& loss() const {
    return *reinterpret_cast<double*>(u_.b.s + u_.b.at.loss);
  }

  __device__ __forceinline__ void no_losses_from(int64_t s) const {
    for (s += threadIdx.x; s < r_.S; s += kBlockThreads) r_.losses[model_ * r_.S + s] = NAN;
  }

  const TrainingRun& r_;
  const int64_t model_;
  BlockUpdate<Math> u_;
  BlockIds next_;
  int turn_ = 0;  // which of two arrays has the ids of the block of rows
};

template <class Math>
__global__ void __launch_bounds__(kBlockThreads, 1)
    train_steps_block_kernel(const __grid_constant__ TrainingRun run,
                             const __grid_constant__ BlockLayout layout) {
  BlockTrainer<Math>(run, layout, dynamic_shared<float>()).run();
}

inline BlockNeeds block_needs(const TrainSteps& a) {
  return {BlockUpdate<Split>::sums(a.N, a.max_grad_norm < INFINITY),
          moments_of(rule_constants(a).rule)};
}

// body(Kernel<...>{}) for the kernel that the options choose.
template <class Body>
auto for_block_kernel(const TrainSteps& a, const Body& body) {
  return a.tf32 ? body(Kernel<train_steps_block_kernel<Tf32>>{})
                : body(Kernel<train_steps_block_kernel<Split>>{});
}

inline BlockLayout training_layout(const TrainSteps& a) {
  const size_t limit =
      for_block_kernel(a, [](auto kernel) { return shared_limit<decltype(kernel)::value>(); });
  return block_layout(model_sizes(a.model), block_needs(a), limit);
}

inline bool block_fits(const TrainSteps& a) { return a.N > 0 && training_layout(a).fits; }

// Floats for each model: the gradients, where shared memory has no room for them.
inline size_t block_workspace(const TrainSteps& a) {
  const BlockLayout layout = training_layout(a);
  return block_needs(a).gradients && layout.gradients < 0 ? static_cast<size_t>(layout.parameters)
                                                          : 0;
}

inline cudaError_t launch_block(const TrainSteps& a, const TrainingRun& run, void* stream) {
  const BlockLayout layout = training_layout(a);
  return for_block_kernel(a, [&](auto kernel) {
    return launch<decltype(kernel)::value>(a.model.M, kBlockThreads, layout.total * sizeof(float),
                                           stream, run, layout);
  });
}

}  // namespace
}  // namespace mlpkern::cuda
