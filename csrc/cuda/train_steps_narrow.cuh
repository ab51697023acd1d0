// train_steps of narrow models: one hidden layer, at most 256 units, 32 inputs T*D and 32 classes.
//
// A warp owns 16 hidden units: their rows of both weights, which no other warp reads, so that
// between hidden layer, logits and weight gradients it waits for nobody. A batch is walked in
// blocks of 32 rows:
//
//   forward    every warp: h of its units (32, 16), its part of the logits        | barrier
//   loss       rows dealt out to warps: sum of the parts, softmax, dlogits        | barrier
//   backward   every warp: dz, its part of dx, its weights' gradients and update   | barrier
//   dx         rows dealt out to warps: sum of the parts                          | barrier
//   embedding  tiles dealt out to warps: its gradient, a product with ones where ids are equal, so
//              that no atomics are needed, and update                             | barrier
//   gather     x of the next block of rows                                        | barrier
//
// All products are mma.sync with the float32 weights themselves in shared memory. Results of one
// product are operands of the next without leaving the registers (see mma_fragments.cuh). Row
// numbers are loaded two blocks of rows ahead, ids one. Gradients that are clipped or that several
// blocks of rows add to (`sums`) are kept in the workspace until the last of them.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/mma_fragments.cuh"
#include "cuda/tanh.cuh"
#include "cuda/train_steps_narrow_layout.cuh"
#include "cuda/train_steps_run.cuh"

namespace mlpkern::cuda {
namespace {

// The most threads of a block. Cards that give it 99 KB have room for nine warps: there a thread
// may have more registers, which TF32 on sm_120 needs.
template <class Math>
constexpr int kNarrowThreads = kWarp *
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
                               (Math::kSplit ? kNarrowMostWarps : 12);
#else
                               kNarrowMostWarps;
#endif
constexpr int kNarrowDepth = kNarrowWidth / 8;  // mma steps and column tiles of 32 elements
constexpr int kRowTiles = kNarrowRows / 16;     // of a block of rows
constexpr int kUnitTiles = kNarrowUnits / 8;    // columns of a warp
constexpr int kRowLanes = kNarrowWidth / 4;     // lanes of a row of logits or dx

// One thread of the block that trains one model.
template <class Math, bool sums>
class NarrowTrainer {
 public:
  __device__ __forceinline__ NarrowTrainer(const TrainingRun& run, float* shared)
      : r_(run),
        z_(run.sizes),
        at_(run.sizes, sums),
        s_(shared),
        m_(static_cast<int>(blockIdx.x)),
        inputs_(z_.T * z_.D),
        units_(z_.hidden[0]),
        blocks_(static_cast<int>((run.N + kNarrowRows - 1) / kNarrowRows)),
        position_(l_.lane / z_.D),
        column_(l_.lane % z_.D),
        input_drops_(run.input_dropout[m_] > 0),
        hidden_drops_(run.hidden_dropout[m_] > 0) {}

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
  // ---- the model in shared memory ----

  // body(element of the caller's tensor i, element in shared memory) for every parameter.
  template <class Body>
  __device__ __forceinline__ void for_parameters(const Body& body) {
    const int threads = static_cast<int>(blockDim.x), thread = l_.thread;
    float* table = r_.parameters.at(0, m_);
    for (int i = thread; i < z_.V * z_.D; i += threads) body(table[i], s_[at_.embedding + i]);
    float *w1 = r_.parameters.weight(0, m_), *w2 = r_.parameters.weight(1, m_);
    for (int i = thread; i < units_ * inputs_; i += threads)
      body(w1[i], s_[at_.w1 + i / inputs_ * kNarrowStride + i % inputs_]);
    for (int i = thread; i < z_.C * units_; i += threads)
      body(w2[i], s_[at_.w2 + i % units_ * kNarrowStride + i / units_]);
    float *b1 = r_.parameters.bias(0, m_), *b2 = r_.parameters.bias(1, m_);
    for (int i = thread; i < units_; i += threads) body(b1[i], s_[at_.b1 + i]);
    for (int i = thread; i < z_.C; i += threads) body(b2[i], s_[at_.b2 + i]);
  }

  __device__ __forceinline__ void load() {
    // zeros in the padding multiply and add up to nothing
    for (int i = l_.thread; i < at_.total; i += static_cast<int>(blockDim.x)) s_[i] = 0.0f;
    __syncthreads();
    for_parameters([](float& given, float& mine) { mine = given; });
  }

  __device__ __forceinline__ void store() {
    for_parameters([](float& given, float& mine) { given = mine; });
  }

  // ---- rows and ids; two buffers of ids, for this block of rows and for the next ----

  __device__ __forceinline__ int* ids(int buffer, int position) {
    return reinterpret_cast<int*>(s_ + at_.ids) + (buffer * (z_.T + 1) + position) * kNarrowRows;
  }
  __device__ __forceinline__ int* rows() { return reinterpret_cast<int*>(s_ + at_.rows); }

  // Block b of step s; the one after it.
  struct Block {
    int64_t s;
    int b;
  };
  __device__ __forceinline__ Block after(Block at) const {
    return at.b + 1 == blocks() ? Block{at.s + 1, 0} : Block{at.s, at.b + 1};
  }

  // Without sums a batch is a single block.
  __device__ __forceinline__ int blocks() const { return sums ? blocks_ : 1; }

  // Of this lane's row; behind the end of a batch, its last row once more.
  __device__ __forceinline__ int load_row(Block at) const {
    const int n = at.b * kNarrowRows + l_.lane, N = static_cast<int>(r_.N);
    return static_cast<int>(r_.batch_row(m_, at.s, n < N ? n : N - 1));
  }
  __device__ __forceinline__ int load_symbol(int64_t row, int position) const {
    return position < z_.T ? load_input(r_.examples, row, position) : load_target(r_.examples, row);
  }

  __device__ __forceinline__ void begin() {
    if (l_.thread == 0) {
      dropouts()[0] = r_.dropout(m_, 0), dropouts()[1] = r_.dropout(m_, 1);
      *constants(0) = r_.constants[int64_t{m_} * r_.S];
    }
    const Block first{0, 0}, second = after(first);
    const int row = load_row(first);
    for (int p = l_.warp; p <= z_.T; p += at_.warps) ids(0, p)[l_.lane] = load_symbol(row, p);
    if (l_.warp == 0 && second.s < r_.S) rows()[l_.lane] = load_row(second);
    __syncthreads();
    gather(first, 0);
    __syncthreads();
  }

  __device__ __forceinline__ Dropout* dropouts() {
    return reinterpret_cast<Dropout*>(s_ + at_.dropouts);
  }

  __device__ __forceinline__ void gather(Block at, int buffer) {
    const int row0 = at.b * kNarrowRows;
    for (int n = l_.warp; n < kNarrowRows; n += at_.warps) {
      float x = 0.0f;
      if (l_.lane < inputs_) {
        x = s_[at_.embedding + ids(buffer, position_)[n] * z_.D + column_];
        if (input_drops_) x *= dropout_factor(later(dropouts()[0], at.s), l_.lane, row0 + n);
      }
      s_[at_.x + n * kNarrowStride + l_.lane] = x;
    }
  }

  // ---- a step ----

  // False if its loss is not finite: then nothing has changed.
  __device__ __forceinline__ bool step(int64_t s) {
    bool finite = true;
    if (l_.thread == 0 && s + 1 < r_.S) load_constants(s + 1);
    for (int b = 0; b < blocks(); ++b) {
      l_ = Lane();
      const Block here{s, b}, next = after(here), following = after(next);
      const bool last = b + 1 == blocks(), more = next.s < r_.S;
      // Both wait for memory while the block works.
      const int next_symbol = more && l_.warp <= z_.T ? load_symbol(rows()[l_.lane], l_.warp) : 0;
      int following_row = 0;
      if (l_.warp == 0 && following.s < r_.S) following_row = load_row(following);

      float y[kRowTiles][kUnitTiles][4];  // tanh
      hidden(y);
      const Kept kept = draw(here);
      logits(y, kept);
      __syncthreads();  // the parts of the logits
      loss(last ? static_cast<int>(r_.N - b * kNarrowRows) : kNarrowRows);
      __syncthreads();  // dlogits, losses
      const float loss = s_[at_.losses + l_.lane];
      finite = finite && __all_sync(kAllLanes, isfinite(loss));
      if (l_.warp == 0) add_loss(loss, b == 0, last ? loss_of(s) : nullptr);
      if (last && !finite) return false;
      const StepConstants& constants = *this->constants(s);
      backward(y, kept, {constants, b == 0, last && !(sums && r_.clips())});
      l_ = Lane();
      __syncthreads();  // the parts of dx
      sum_dx(here);
      __syncthreads();  // dx
      if (!sums || (last && !r_.clips()))
        for_rule(r_.rule.rule,
                 [&](auto is) { update_embedding<decltype(is)::rule>(constants, b == 0); });
      else
        add_embedding_gradient(b == 0);
      if (sums && last && r_.clips()) clip(constants);
      if (more) {
        if (l_.warp <= z_.T) ids(buffer_ ^ 1, l_.warp)[l_.lane] = next_symbol;
        for (int p = l_.warp + at_.warps; p <= z_.T; p += at_.warps)
          ids(buffer_ ^ 1, p)[l_.lane] = load_symbol(rows()[l_.lane], p);
      }
      if (last) cp_async_wait<0>();
      __syncthreads();  // embedding, ids, constants; the row numbers have been read
      buffer_ ^= 1;
      if (l_.warp == 0) rows()[l_.lane] = following_row;
      if (more) gather(next, buffer_);
      __syncthreads();  // x
    }
    return true;
  }

  __device__ __forceinline__ float* loss_of(int64_t s) {
    return r_.losses + int64_t{m_} * r_.S + s;
  }

  __device__ __forceinline__ StepConstants* constants(int64_t s) {
    return reinterpret_cast<StepConstants*>(s_ + at_.constants) + (s & 1);
  }
  __device__ __forceinline__ void load_constants(int64_t s) {
    cp_async<sizeof(StepConstants)>(constants(s), r_.constants + int64_t{m_} * r_.S + s,
                                    sizeof(StepConstants));
    cp_async_commit();
  }

  // Adds the losses of a block of rows, one of each lane; the mean of the batch goes to `mean`.
  __device__ __forceinline__ void add_loss(float loss, bool first, float* mean) {
    double sum = warp_sum(static_cast<double>(loss));
    double* before = reinterpret_cast<double*>(s_ + at_.norms);
    if (l_.lane > 0) return;
    if (sums && !first) sum += *before;
    if (mean)
      *mean = static_cast<float>(sum / static_cast<double>(r_.N));
    else
      *before = sum;
  }

  // ---- hidden layer and logits ----

  // The dropout of what the lane holds of h, (kRowTiles, kUnitTiles, 4): a bit for each.
  struct Kept {
    uint32_t bits;
    float scale;

    __device__ __forceinline__ float factor(int m, int n, int r) const {
      return bits >> ((m * kUnitTiles + n) * 4 + r) & 1 ? scale : 0.0f;
    }
  };

  __device__ __forceinline__ Kept draw(Block here) {
    if (!hidden_drops_) return {~uint32_t{0}, 1.0f};
    const Dropout dropout = later(dropouts()[1], here.s);
    const int row0 = here.b * kNarrowRows;
    Kept kept{0, dropout.scale};
#pragma unroll 1
    for (int bit = 0; bit < kRowTiles * kUnitTiles * 4; bit += 2) {
      const int m = bit / (4 * kUnitTiles), n = bit / 4 % kUnitTiles, half = bit / 2 % 2;
      uint32_t word[4];
      philox(word, dropout, static_cast<uint32_t>((unit0() + 8 * n + 2 * l_.t) / 4),
             static_cast<uint32_t>(row0 + 16 * m + 8 * half + l_.g));
      const uint32_t low = l_.t & 1 ? word[2] : word[0], high = l_.t & 1 ? word[3] : word[1];
      kept.bits |= static_cast<uint32_t>(low >= dropout.threshold) << bit;
      kept.bits |= static_cast<uint32_t>(high >= dropout.threshold) << (bit + 1);
    }
    return kept;
  }

  // What the output layer reads of y.
  __device__ __forceinline__ void read(float (&h)[4], const float (&y)[4], const Kept& kept, int m,
                                       int n) {
#pragma unroll
    for (int r = 0; r < 4; ++r) h[r] = y[r];
    if (hidden_drops_)
#pragma unroll
      for (int r = 0; r < 4; ++r) h[r] *= kept.factor(m, n, r);
  }

  // y = tanh(x w1^T + b1) of the warp's units.
  __device__ __forceinline__ void hidden(float (&y)[kRowTiles][kUnitTiles][4]) {
    product(y, s_ + at_.x, s_ + at_.w1);
#pragma unroll
    for (int n = 0; n < kUnitTiles; ++n) {
      const float* bias = s_ + at_.b1 + unit0() + 8 * n + 2 * l_.t;
      const float b[2] = {bias[0], bias[1]};
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const float z = y[m][n][r] + b[r & 1];
          y[m][n][r] = Math::kSplit ? tanh_accurate(z) : tanh_absolute(z);
        }
    }
  }

  __device__ __forceinline__ int unit0() const { return l_.warp * kNarrowUnits; }

  __device__ __forceinline__ float* part() { return s_ + at_.parts + l_.warp * kNarrowPart; }

  // d (32, 16) = the rows of `a` times the warp's rows of a weight.
  __device__ __forceinline__ void product(float (&d)[kRowTiles][kUnitTiles][4], const float* a,
                                          const float* weight) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n)
#pragma unroll
        for (int r = 0; r < 4; ++r) d[m][n][r] = 0.0f;
#pragma unroll
    for (int k = 0; k < kNarrowDepth; ++k) {
      OperandA<Math> left[kRowTiles];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        left[m] = a_along<Math>(a + m * 16 * kNarrowStride + 8 * k, kNarrowStride, l_);
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) {
        const auto right =
            b_along<Math>(weight + (unit0() + 8 * n) * kNarrowStride + 8 * k, kNarrowStride, l_);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) Math::multiply(d[m][n], left[m], right);
      }
    }
  }

  // The warp's part (32, classes) = h w2^T over its units.
  __device__ __forceinline__ void logits(const float (&y)[kRowTiles][kUnitTiles][4],
                                         const Kept& kept) {
    OperandA<Math> left[kRowTiles][kUnitTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) {
        float h[4];
        read(h, y[m][n], kept, m, n);
        left[m][n] = a_of_result<Math>(h);
      }
    product_by_units(left, s_ + at_.w2);
  }

  // The warp's part (32, inputs) = dz w1 over its units.
  __device__ __forceinline__ void dx_part(const float (&dz)[kRowTiles][kUnitTiles][4]) {
    OperandA<Math> left[kRowTiles][kUnitTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) left[m][n] = a_of_result<Math>(dz[m][n]);
    product_by_units(left, s_ + at_.w1);
  }

  __device__ __forceinline__ void product_by_units(
      const OperandA<Math> (&left)[kRowTiles][kUnitTiles], const float* weight) {
#pragma unroll
    for (int j = 0; j < kNarrowDepth; ++j) {
      float d[kRowTiles][4] = {};
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) {
        const auto right =
            b_across<Math>(weight + (unit0() + 8 * n) * kNarrowStride + 8 * j, kNarrowStride, l_);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) Math::multiply(d[m], left[m][n], right);
      }
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        store_result(part() + m * 16 * kNarrowStride + 8 * j, kNarrowStride, d[m], l_);
    }
  }

  // body(row, first column) for four rows at a time, dealt out to warps: each has eight lanes, and
  // each of them four columns.
  template <class Body>
  __device__ __forceinline__ void for_rows(const Body& body) {
    for (int n = 4 * l_.warp; n < kNarrowRows; n += 4 * at_.warps)
      body(n + l_.lane / kRowLanes, l_.lane % kRowLanes * 4);
  }

  // Four columns of a row, summed over the warps' parts.
  __device__ __forceinline__ void sum_parts(float (&sum)[4], int n, int column) {
    const float* at = s_ + at_.parts + n * kNarrowStride + column;
#pragma unroll 4
    for (int w = 0; w < at_.warps; ++w) {
      const float4 part = *reinterpret_cast<const float4*>(at + w * kNarrowPart);
      sum[0] += part.x, sum[1] += part.y, sum[2] += part.z, sum[3] += part.w;
    }
  }

  __device__ __forceinline__ void loss(int rows_here) {
    const float share = 1.0f / static_cast<float>(r_.N), smoothing = r_.label_smoothing;
    const float each = smoothing / static_cast<float>(z_.C);
    for_rows([&](int n, int c0) {
      const float4 bias = *reinterpret_cast<const float4*>(s_ + at_.b2 + c0);
      float z[4] = {bias.x, bias.y, bias.z, bias.w};
      sum_parts(z, n, c0);
      float largest = -INFINITY;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (c0 + i >= z_.C) z[i] = -INFINITY;
        largest = fmaxf(largest, z[i]);
      }
      largest = warp_reduce<kRowLanes>(largest, Larger{});
      const int target = ids(buffer_, z_.T)[n] - c0;
      float power[4], sum = 0.0f, hit = 0.0f, spread = 0.0f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        z[i] -= largest;
        power[i] = expf(z[i]);
        sum += power[i];
        if (i == target) hit = z[i];
        if (c0 + i < z_.C) spread += z[i];
      }
      sum = warp_reduce<kRowLanes>(sum, Plus{});
      hit = warp_reduce<kRowLanes>(hit, Plus{});
      float loss = logf(sum) - (1.0f - smoothing) * hit;
      if (smoothing > 0.0f) loss -= each * warp_reduce<kRowLanes>(spread, Plus{});
      const bool is_row = n < rows_here;
      if (c0 == 0) s_[at_.losses + n] = is_row ? loss : 0.0f;
      float d[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float wanted = each + (i == target ? 1.0f - smoothing : 0.0f);
        d[i] = is_row && c0 + i < z_.C ? (power[i] / sum - wanted) * share : 0.0f;
      }
      *reinterpret_cast<float4*>(s_ + at_.dlogits + n * kNarrowStride + c0) =
          make_float4(d[0], d[1], d[2], d[3]);
    });
  }

  // ---- the weights: gradients and update, each by the warp that owns the units ----

  // What becomes of the gradients of a block of rows.
  struct Use {
    const StepConstants& constants;
    bool first, update;
  };

  __device__ __forceinline__ void backward(const float (&y)[kRowTiles][kUnitTiles][4],
                                           const Kept& kept, const Use& use) {
    float dz[kRowTiles][kUnitTiles][4];
    product(dz, s_ + at_.dlogits, s_ + at_.w2);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) {
        float h[4];
        read(h, y[m][n], kept, m, n);
        store_result(part() + m * 16 * kNarrowUnitStride + n * 8, kNarrowUnitStride, h, l_);
        if (hidden_drops_)
#pragma unroll
          for (int r = 0; r < 4; ++r) dz[m][n][r] *= kept.factor(m, n, r);
#pragma unroll
        for (int r = 0; r < 4; ++r) dz[m][n][r] *= 1.0f - y[m][n][r] * y[m][n][r];
      }
    __syncwarp();
    float gradient[kNarrowDepth][4];
    weight_gradient(gradient, s_ + at_.dlogits);
    use_gradient(kW2, gradient, use);
    __syncwarp();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n)
        store_result(part() + m * 16 * kNarrowUnitStride + n * 8, kNarrowUnitStride, dz[m][n], l_);
    __syncwarp();
    weight_gradient(gradient, s_ + at_.x);
    __syncwarp();
    dx_part(dz);
    __syncwarp();  // w1 has been read
    use_gradient(kW1, gradient, use);
    use_bias_gradients(dz, use);
  }

  // gradient (16, 32) = left^T right: left is what the warp keeps in its part, and the rows of the
  // batch are the reduction.
  __device__ __forceinline__ void weight_gradient(float (&gradient)[kNarrowDepth][4],
                                                  const float* right) {
    clear(gradient);
#pragma unroll
    for (int k = 0; k < kNarrowRows / 8; ++k) {
      const auto a = a_across<Math>(part() + 8 * k * kNarrowUnitStride, kNarrowUnitStride, l_);
#pragma unroll
      for (int j = 0; j < kNarrowDepth; ++j)
        Math::multiply(gradient[j], a,
                       b_across<Math>(right + 8 * k * kNarrowStride + 8 * j, kNarrowStride, l_));
    }
  }

  __device__ __forceinline__ static void clear(float (&gradient)[kNarrowDepth][4]) {
#pragma unroll
    for (int j = 0; j < kNarrowDepth; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) gradient[j][r] = 0.0f;
  }

  enum Weight { kW1, kW2 };

  __device__ __forceinline__ float* warp_sums() {
    return r_.workspace + m_ * r_.workspace_stride + l_.warp * kNarrowWarpSums;
  }
  __device__ __forceinline__ float4* weight_sums(Weight which) {
    return reinterpret_cast<float4*>(warp_sums() + which * kNarrowUnits * kNarrowWidth) + l_.lane;
  }
  __device__ __forceinline__ float* b1_sums() {
    return warp_sums() + 2 * kNarrowUnits * kNarrowWidth;
  }
  __device__ __forceinline__ float* b2_sums() {
    return r_.workspace + m_ * r_.workspace_stride + at_.warps * kNarrowWarpSums;
  }

  __device__ __forceinline__ void use_gradient(Weight which, float (&gradient)[kNarrowDepth][4],
                                               const Use& use) {
    if constexpr (sums) {
      if (!use.first) add_sums(which, gradient);
      if (!use.update) {
#pragma unroll
        for (int j = 0; j < kNarrowDepth; ++j) {
          const float (&g)[4] = gradient[j];
          weight_sums(which)[j * kWarp] = make_float4(g[0], g[1], g[2], g[3]);
        }
      }
    }
    if (use.update)
      for_rule(r_.rule.rule, [&](auto is) {
#pragma unroll
        for (int j = 0; j < kNarrowDepth; ++j)
#pragma unroll
          for (int r = 0; r < 4; ++r)
            update_weight<decltype(is)::rule>(which, j, r, gradient[j][r], use.constants);
      });
  }

  __device__ __forceinline__ void add_sums(Weight which, float (&gradient)[kNarrowDepth][4]) {
#pragma unroll
    for (int j = 0; j < kNarrowDepth; ++j) {
      const float4 sum = weight_sums(which)[j * kWarp];
      gradient[j][0] += sum.x, gradient[j][1] += sum.y;
      gradient[j][2] += sum.z, gradient[j][3] += sum.w;
    }
  }

  __device__ __forceinline__ void use_bias_gradients(const float (&dz)[kRowTiles][kUnitTiles][4],
                                                     const Use& use) {
#pragma unroll
    for (int n = 0; n < kUnitTiles; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float sum = 0.0f;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) sum += dz[m][n][c] + dz[m][n][c + 2];
#pragma unroll
        for (int distance = 16; distance >= 4; distance /= 2)
          sum += __shfl_xor_sync(kAllLanes, sum, distance);
        const int unit = 8 * n + 2 * l_.t + c;
        if (l_.g == 0) use_bias_gradient(b1_sums() + unit, kB1, unit0() + unit, sum, use);
      }
    if (l_.warp + 1 != at_.warps) return;
    float sum = 0.0f;
#pragma unroll 8
    for (int n = 0; n < kNarrowRows; ++n) sum += s_[at_.dlogits + n * kNarrowStride + l_.lane];
    use_bias_gradient(b2_sums() + l_.lane, kB2, l_.lane, sum, use);
  }

  enum Bias { kB1, kB2 };

  __device__ __forceinline__ void use_bias_gradient(float* stored, Bias which, int i,
                                                    float gradient, const Use& use) {
    if constexpr (sums) {
      if (!use.first) gradient += *stored;
      if (!use.update) {
        *stored = gradient;
      }
    }
    if (use.update)
      for_rule(r_.rule.rule, [&](auto is) {
        update_bias<decltype(is)::rule>(which, i, gradient, use.constants);
      });
  }

  // Element r of column tile j of the warp's rows of a weight, as mma leaves their gradient.
  template <Rule rule>
  __device__ __forceinline__ void update_weight(Weight which, int j, int r, float gradient,
                                                const StepConstants& c) {
    const int unit = unit0() + l_.g + 8 * (r / 2), column = 8 * j + 2 * l_.t + r % 2;
    const int columns = which == kW1 ? inputs_ : z_.C;
    if (unit < units_ && column < columns)
      update<rule>(c, s_[(which == kW1 ? at_.w1 : at_.w2) + unit * kNarrowStride + column],
                   gradient, which == kW1 ? 1 : 3,
                   which == kW1 ? unit * columns + column : column * units_ + unit, true);
  }

  template <Rule rule>
  __device__ __forceinline__ void update_bias(Bias which, int i, float gradient,
                                              const StepConstants& c) {
    if (i < (which == kB1 ? units_ : z_.C))
      update<rule>(c, s_[(which == kB1 ? at_.b1 : at_.b2) + i], gradient, which == kB1 ? 2 : 4, i,
                   false);
  }

  __device__ __forceinline__ void sum_dx(Block here) {
    const int row0 = here.b * kNarrowRows;
    for_rows([&](int n, int k0) {
      float sum[4] = {};
      sum_parts(sum, n, k0);
      if (input_drops_) {
        const Dropout dropout = later(dropouts()[0], here.s);
        uint32_t word[4];
        philox(word, dropout, static_cast<uint32_t>(k0 / 4), static_cast<uint32_t>(row0 + n));
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] *= word[i] < dropout.threshold ? 0.0f : dropout.scale;
      }
      *reinterpret_cast<float4*>(s_ + at_.dx + n * kNarrowStride + k0) =
          make_float4(sum[0], sum[1], sum[2], sum[3]);
    });
  }

  // ---- the embedding: tiles of 16 ids and 8 columns dealt out to warps ----

  // body(element, its gradient from this block of rows) for the elements of the warp's tiles.
  template <class Body>
  __device__ __forceinline__ void for_embedding(const Body& body) {
    const int across = (z_.D + 7) / 8, tiles = (z_.V + 15) / 16 * across;
    for (int tile = l_.warp; tile < tiles; tile += at_.warps) {
      const int v0 = tile / across * 16, d0 = tile % across * 8;
      float big[4] = {}, small[4] = {};
      for (int p = 0; p < z_.T; ++p) {
        const int* symbols = ids(buffer_, p) + 2 * l_.t;
        const float* at = s_ + at_.dx + 2 * l_.t * kNarrowStride + p * z_.D + d0 + l_.g;
#pragma unroll
        for (int k = 0; k < kNarrowRows; k += 8) {
          // ones where the id is that of the row; the gradient in two parts, exact to float32
          const int id[2] = {symbols[k], symbols[k + 1]};
          uint32_t one[4];
#pragma unroll
          for (int i = 0; i < 4; ++i)
            one[i] = __float_as_uint(id[i >> 1] == v0 + l_.g + 8 * (i & 1) ? 1.0f : 0.0f);
          const uint32_t raw[2] = {__float_as_uint(at[k * kNarrowStride]),
                                   __float_as_uint(at[(k + 1) * kNarrowStride])};
          Split::Operand<2> right;
          right.set(raw);
          mma_tf32(big, one, right.big);
          mma_tf32(small, one, right.small);
        }
      }
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int v = v0 + l_.g + 8 * (r >> 1), column = d0 + 2 * l_.t + (r & 1);
        if (v < z_.V && column < z_.D) body(v * z_.D + column, big[r] + small[r]);
      }
    }
  }

  __device__ __forceinline__ void add_embedding_gradient(bool first) {
    float* total = s_ + at_.dembedding;
    for_embedding([&](int i, float d) { total[i] = first ? d : total[i] + d; });
  }

  template <Rule rule>
  __device__ __forceinline__ void update_embedding(const StepConstants& c, bool first) {
    const float* before = s_ + at_.dembedding;
    for_embedding([&](int i, float d) {
      update<rule>(c, s_[at_.embedding + i], first ? d : before[i] + d, 0, i, true);
    });
  }

  // ---- clipping ----

  // body(element in the workspace, unit or class) for the bias gradients that this thread stored.
  template <class Body>
  __device__ __forceinline__ void for_biases(const Body& body) {
    if (l_.g == 0)
      for (int n = 0; n < kNarrowUnits; n += 8)
        for (int i = n + 2 * l_.t; i < n + 2 * l_.t + 2; ++i) body(kB1, b1_sums()[i], unit0() + i);
    if (l_.warp + 1 == at_.warps) body(kB2, b2_sums()[l_.lane], l_.lane);
  }

  // Updates everything with the gradients scaled so that their norm is within its bound.
  __device__ __forceinline__ void clip(const StepConstants& c) {
    l_ = Lane();
    double squares = 0;
    const auto add = [&](float x) { squares += static_cast<double>(x) * x; };
    __syncthreads();  // the gradient of the embedding
    const int threads = static_cast<int>(blockDim.x), thread = l_.thread;
    for (int i = thread; i < z_.V * z_.D; i += threads) add(s_[at_.dembedding + i]);
    for (int j = 0; j < 2 * kNarrowDepth; ++j) {  // of w1, then of w2
      const float4 sum = weight_sums(kW1)[j * kWarp];
      add(sum.x), add(sum.y), add(sum.z), add(sum.w);
    }
    for_biases([&](Bias, float sum, int) { add(sum); });
    const double norm = sqrt(block_sum(squares, reinterpret_cast<double*>(s_ + at_.norms)));
    const double most = r_.max_grad_norm / (norm + 1e-6);
    const float scale = most < 1 ? static_cast<float>(most) : 1.0f;
    for_rule(r_.rule.rule, [&](auto is) {
      constexpr Rule rule = decltype(is)::rule;
      for (int i = thread; i < z_.V * z_.D; i += threads)
        update<rule>(c, s_[at_.embedding + i], scale * s_[at_.dembedding + i], 0, i, true);
#pragma unroll 1
      for (int j = 0; j < 2 * kNarrowDepth; ++j) {
        const float4 sum = weight_sums(kW1)[j * kWarp];
        const Weight which = j < kNarrowDepth ? kW1 : kW2;
        update_weight<rule>(which, j % kNarrowDepth, 0, scale * sum.x, c);
        update_weight<rule>(which, j % kNarrowDepth, 1, scale * sum.y, c);
        update_weight<rule>(which, j % kNarrowDepth, 2, scale * sum.z, c);
        update_weight<rule>(which, j % kNarrowDepth, 3, scale * sum.w, c);
      }
      for_biases(
          [&](Bias which, float sum, int i) { update_bias<rule>(which, i, scale * sum, c); });
    });
  }

  // One parameter, element i of the caller's tensor; its moments stay in the caller's memory.
  template <Rule rule>
  __device__ __forceinline__ void update(const StepConstants& c, float& parameter, float gradient,
                                         int tensor, int i, bool decays) {
    float first = 0.0f, second = 0.0f;
    float *firsts = nullptr, *seconds = nullptr;
    if constexpr (kHasFirst<rule>) firsts = r_.first.at(tensor, m_) + i, first = *firsts;
    if constexpr (kHasSecond<rule>) seconds = r_.second.at(tensor, m_) + i, second = *seconds;
    parameter = updated<rule>(r_.rule, c, parameter, gradient, first, second, decays);
    if constexpr (kHasFirst<rule>) *firsts = first;
    if constexpr (kHasSecond<rule>) *seconds = second;
  }

  const TrainingRun& r_;
  const ModelSizes& z_;
  Lane l_;
  const NarrowLayout at_;
  float* const s_;
  int m_;
  const int inputs_, units_, blocks_;
  const int position_, column_;  // of the input that this lane gathers
  const bool input_drops_, hidden_drops_;
  int buffer_ = 0;  // of the ids of this block of rows
};

template <class Math, bool sums>
__global__ void __launch_bounds__(kNarrowThreads<Math>, 1)
    train_steps_narrow_kernel(TrainingRun run) {
  NarrowTrainer<Math, sums>(run, dynamic_shared<float>()).train();
}

inline cudaError_t launch_narrow(const TrainSteps& a, const TrainingRun& run, void* stream) {
  const bool sums = narrow_sums(run.N, run.clips());
  const NarrowLayout layout(run.sizes, sums);
  const auto start = [&](auto math, auto with_sums) {
    return launch<train_steps_narrow_kernel<decltype(math), decltype(with_sums)::value>>(
        static_cast<unsigned>(a.model.M), static_cast<unsigned>(layout.warps * kWarp),
        layout.total * sizeof(float), stream, run);
  };
  if (a.tf32) return sums ? start(Tf32{}, std::true_type{}) : start(Tf32{}, std::false_type{});
  return sums ? start(Split{}, std::true_type{}) : start(Split{}, std::false_type{});
}

}  // namespace
}  // namespace mlpkern::cuda
