// Sums and maxima over the lanes of a warp and the threads of a block, in a fixed order, so the
// bits are the same in every run. All threads of the warp or block take part and get the result.
#pragma once

#include <cuda_runtime.h>

namespace mlpkern::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kMostWarps = 32;  // in a block

struct Plus {
  template <class A>
  __device__ __forceinline__ A operator()(A a, A b) const {
    return a + b;
  }
};

// The larger number; NaN only if both are NaN.
struct Larger {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
  __device__ __forceinline__ double operator()(double a, double b) const { return fmax(a, b); }
};

// Over each `Lanes` neighbouring lanes, a power of two; a butterfly, so that all get the same bits.
template <int Lanes = kWarp, class A, class Op>
__device__ __forceinline__ A warp_reduce(A value, Op op) {
#pragma unroll
  for (int distance = Lanes / 2; distance > 0; distance /= 2)
    value = op(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

// The same for a number of lanes known at run time, equal in the whole warp.
template <class A, class Op>
__device__ __forceinline__ A lanes_reduce(A value, int lanes, Op op) {
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    value = op(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

template <class A>
__device__ __forceinline__ A warp_sum(A value) {
  return warp_reduce(value, Plus{});
}

template <class A>
__device__ __forceinline__ A warp_max(A value) {
  return warp_reduce(value, Larger{});
}

// Over a one-dimensional block of whole warps. `shared` holds kMostWarps values that no thread
// reads or writes from one barrier before this call to one barrier after it.
template <class A, class Op>
__device__ __forceinline__ A block_reduce(A value, A identity, A* shared, Op op) {
  const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  value = warp_reduce(value, op);
  if (lane == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  return warp_reduce(lane < warps ? shared[lane] : identity, op);
}

template <class A>
__device__ __forceinline__ A block_sum(A value, A* shared) {
  return block_reduce(value, A{0}, shared, Plus{});
}

template <class A>
__device__ __forceinline__ A block_max(A value, A* shared) {
  return block_reduce(value, -static_cast<A>(INFINITY), shared, Larger{});
}

}  // namespace mlpkern::cuda
