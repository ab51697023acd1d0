// cross_entropy of narrow rows: many rows a block, through shared memory.
//
// A row of 27 floats has 108 bytes, so it is not aligned to vectors. But adjacent rows are one flat
// run of memory, which a block moves as 128-bit vectors whatever the length of a row. In shared
// memory a row belongs to 1 to 32 neighboring lanes of a warp, each of which holds every lanes-th
// element, at most kMostHeld, in registers. Gradients overwrite the logits and are stored flat.
//
// Within each 128 bytes of shared memory the 16-byte chunks are swizzled (XOR with the number of
// the 128 bytes modulo 8): otherwise rows of 8, 16 or 32 elements would meet the same banks.
#pragma once

#include "cuda/cross_entropy/gradient.cuh"
#include "cuda/cross_entropy/parts.cuh"
#include "cuda/device/launch.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kTileThreads = 256;
constexpr int kMostHeld = 8;                             // elements of a row in one lane
constexpr int64_t kMostTileClasses = kMostHeld * kWarp;  // of a row
constexpr int kMostTileRows = kTileThreads;              // a thread loads the target of its row
constexpr int kTileBytes = 16 << 10;                     // of logits

struct TilePlan {
  int lanes;  // of a row
  int rows;   // of a tile
  int tiles;  // of a block, one after the other
  int bytes;  // of a tile in shared memory; with probabilities there are two
};

// Elements of `rows` rows in shared memory, at the same offset from a 16-byte boundary as in global
// memory.
template <class T>
class Tile {
 public:
  __device__ __forceinline__ Tile(unsigned char* memory, const T* at_phase_of)
      : memory_(memory),
        phase_(static_cast<unsigned>(reinterpret_cast<uintptr_t>(at_phase_of) % kVectorBytes)) {}

  __device__ __forceinline__ T* at(int i) const {
    const unsigned byte = phase_ + i * static_cast<unsigned>(sizeof(T));
    return reinterpret_cast<T*>(memory_ + (byte ^ (byte >> 3 & 0x70)));
  }

  // Copies rows that are `stride` elements apart; adjacent ones, at the offset of the tile, in
  // vectors.
  __device__ __forceinline__ void copy_in(const T* from, int64_t stride, int rows, int C) const {
    constexpr int Items = kVectorItems<T>, InFlight = 4;
    if (stride != C) {
      const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll 1
      for (int r = warp; r < rows; r += kTileThreads / kWarp)
        for (int c = lane; c < C; c += kWarp) *at(r * C + c) = from[r * stride + c];
      return;
    }
    const auto edge = [&](int e) { *at(e) = from[e]; };
    const auto round = [&](auto whole, int first, int step, int end) {
      const auto dealt = [&](int u) { return decltype(whole)::value || first + u * step < end; };
      Vector<T> v[InFlight];
#pragma unroll
      for (int u = 0; u < InFlight; ++u)
        if (dealt(u)) v[u] = load_vector<Items>(from + first + u * step);
#pragma unroll
      for (int u = 0; u < InFlight; ++u)
        if (dealt(u)) store_vector(at(first + u * step), v[u]);
    };
    deal<InFlight>(from, rows * C, threadIdx.x, kTileThreads, edge, round);
  }

  __device__ __forceinline__ void copy_out(T* to, int count) const {
    if (reinterpret_cast<uintptr_t>(to) % kVectorBytes != phase_) {
#pragma unroll 4
      for (int i = threadIdx.x; i < count; i += kTileThreads) to[i] = *at(i);
      return;
    }
    const auto edge = [&](int e) { to[e] = *at(e); };
    const auto round = [&](auto whole, int first, int step, int end) {
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const int e = first + u * step;
        if (decltype(whole)::value || e < end)
          store_vector(to + e, load_vector<kVectorItems<T>>(at(e)));
      }
    };
    deal<4>(to, count, threadIdx.x, kTileThreads, edge, round);
  }

 private:
  unsigned char* memory_;
  unsigned phase_;
};

// One tile's rows and the lanes that share them.
struct TileLanes {
  int lanes, lane, group, groups, C;

  __device__ __forceinline__ TileLanes(int lanes_, int64_t C_)
      : lanes(lanes_),
        lane(threadIdx.x % lanes),
        group(threadIdx.x / lanes),
        groups(kTileThreads / lanes),
        C(static_cast<int>(C_)) {}

  // body(k, c) for each element that this lane holds of a row.
  template <class Body>
  __device__ __forceinline__ void for_held(const Body& body) const {
#pragma unroll
    for (int k = 0; k < kMostHeld; ++k) {
      if (k * lanes >= C) break;  // the same in the whole warp
      if (lane + k * lanes < C) body(k, lane + k * lanes);
    }
  }
};

// q of class c in row r of a tile.
template <class T>
struct TileTargets {
  const Options<T>& o;
  const Tile<T>& probabilities;
  bool spread;  // whether the targets are probabilities
  int C;

  __device__ __forceinline__ acc_t<T> q(int r, int c) const {
    return o.q(o.weight_of(c), spread ? to_acc(*probabilities.at(r * C + c)) : acc_t<T>{0});
  }
};

template <class T>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 8 ? 2 : 4)
    cross_entropy_tile_forward_kernel(CrossEntropyForward a, Options<T> o, TilePlan plan,
                                      LossSums* partial) {
  using A = acc_t<T>;
  __shared__ int classes[kMostTileRows];
  __shared__ LossSums sums[kTileThreads];  // of each thread: here they take no registers
  unsigned char* const memory = dynamic_shared<unsigned char>();
  const TileLanes l(plan.lanes, a.C);
  const bool spread = a.target_is_probability, general = spread || a.label_smoothing != 0;
  sums[threadIdx.x] = {0, 0};
  for (int tile = 0; tile < plan.tiles; ++tile) {
    const int64_t n = (static_cast<int64_t>(blockIdx.x) * plan.tiles + tile) * plan.rows;
    if (n >= a.N) break;
    const int rows = static_cast<int>(a.N - n < plan.rows ? a.N - n : plan.rows);
    const T* const x_n = static_cast<const T*>(a.input) + n * a.input_row_stride;
    const T* const t_n = static_cast<const T*>(a.target) + n * a.target_row_stride;
    const Tile<T> x(memory, x_n), t(memory + plan.bytes, spread ? t_n : nullptr);
    const TileTargets<T> targets = {o, t, spread, l.C};
    const int mine = threadIdx.x;    // the row whose target this thread loads
    if (tile != 0) __syncthreads();  // the rows above are done
    int64_t id = kSpread;
    if (!spread && mine < rows) id = read_target(a, n + mine);
    x.copy_in(x_n, a.input_row_stride, rows, l.C);
    if (spread) t.copy_in(t_n, a.target_row_stride, rows, l.C);
    if (!spread && mine < rows) classes[mine] = static_cast<int>(class_of(a, n + mine, id, true));
    __syncthreads();
    for (int r0 = 0; r0 < rows; r0 += l.groups) {
      const int r =
          r0 + l.group < rows ? r0 + l.group : rows - 1;  // spare lanes repeat the last row
      A held[kMostHeld];
      Statistics<A> s = Statistics<A>::none();
      l.for_held([&](int k, int c) {
        held[k] = to_acc(*x.at(r * l.C + c));
        s.max = Larger{}(s.max, held[k]);
      });
      s.max = lanes_reduce(s.max, l.lanes, Larger{});
      const A from = Statistics<A>::reference(s.max);
      l.for_held([&](int k, int) { s.sum += exp_of(held[k] - from); });
      s.sum = lanes_reduce(s.sum, l.lanes, Plus{});
      if (general) {
        l.for_held([&](int k, int c) {
          const A q = targets.q(r, c);
          s.dot += q * (held[k] - from);
          s.mass += q;
        });
        s.dot = lanes_reduce(s.dot, l.lanes, Plus{});
        s.mass = lanes_reduce(s.mass, l.lanes, Plus{});
      }
      if (l.lane == 0 && r0 + l.group < rows) {
        const int y = spread ? kSpread : classes[r];
        write_row(a, o, n + r, y, y >= 0 ? to_acc(*x.at(r * l.C + y)) : A{0},
                  y >= 0 ? o.weight_of(y) : A{0}, s, sums[threadIdx.x]);
      }
    }
  }
  leave_block_sums<T>(a, sums[threadIdx.x], partial);
}

// One tile per block.
template <class T>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 8 ? 2 : 4)
    cross_entropy_tile_backward_kernel(CrossEntropyBackward a, Options<T> o, TilePlan plan) {
  using A = acc_t<T>;
  __shared__ Softmax<A> softmaxes[kMostTileRows];
  __shared__ A upstream[kMostTileRows], one_hot[kMostTileRows];
  __shared__ int classes[kMostTileRows];
  unsigned char* const memory = dynamic_shared<unsigned char>();
  const TileLanes l(plan.lanes, a.C);
  const bool spread = a.target_is_probability, general = spread || a.label_smoothing != 0;
  // The last rows first: the forward has read them last, so they may still be in L2.
  const int64_t n = (gridDim.x - 1 - blockIdx.x) * static_cast<int64_t>(plan.rows);
  const int rows = static_cast<int>(a.N - n < plan.rows ? a.N - n : plan.rows);
  const T* const x_n = static_cast<const T*>(a.input) + n * a.input_row_stride;
  const T* const t_n = static_cast<const T*>(a.target) + n * a.target_row_stride;
  T* const out = static_cast<T*>(a.dinput) + n * a.C;
  const Tile<T> x(memory, a.input_row_stride == a.C ? x_n : out);
  const Tile<T> t(memory + plan.bytes, spread ? t_n : nullptr);
  const TileTargets<T> targets = {o, t, spread, l.C};

  const int mine = threadIdx.x;  // the row whose target and factors this thread loads
  int64_t id = kSpread;
  A max = 0, log_sum = 0;
  if (mine < rows) {
    if (!spread) id = read_target(a, n + mine);
    max = static_cast<const A*>(a.lse)[n + mine];
    log_sum = static_cast<const A*>(a.lse)[a.N + n + mine];
  }
  x.copy_in(x_n, a.input_row_stride, rows, l.C);
  if (spread) t.copy_in(t_n, a.target_row_stride, rows, l.C);
  if (mine < rows) {
    const int64_t y = spread ? kSpread : class_of(a, n + mine, id, true);
    const A g = upstream_gradient<T>(a, n + mine);
    softmaxes[mine] = Softmax<A>::of(max, log_sum);
    upstream[mine] = g;
    one_hot[mine] = y == kIgnored ? A{0} : one_hot_of(o, g, y);
    classes[mine] = static_cast<int>(y);
  }
  __syncthreads();
  for (int r0 = 0; r0 < rows; r0 += l.groups) {
    const int r = r0 + l.group;
    const bool live = r < rows;
    const int row = live ? r : rows - 1;
    RowGradient<A> gradient = {softmaxes[row], upstream[row], one_hot[row], 0};
    const int y = classes[row];
    A mass = 0;
    if (general) {
      l.for_held([&](int, int c) { mass += targets.q(row, c); });
      mass = lanes_reduce(mass, l.lanes, Plus{});
    }
    gradient.set_mass(mass);
    if (!live) continue;
    l.for_held([&](int, int c) {
      T* const at = x.at(r * l.C + c);
      A g = gradient(to_acc(*at), general ? gradient.upstream * targets.q(r, c) : A{0});
      if (c == y) g -= gradient.one_hot;
      *at = from_acc<T>(y == kIgnored ? A{0} : g);
    });
  }
  __syncthreads();
  x.copy_out(out, rows * l.C);
}

}  // namespace
}  // namespace mlpkern::cuda
