// Kernels that the checks of the machine code must refuse, and at the end some that they must not.
// tests/test_cuda_build.py says which rule each breaks.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cassert>
#include <cstdint>
#include <cstdio>

namespace mlpkern::cuda {
namespace {

// An array indexed at run time does not fit into registers.
__global__ void local_memory_kernel(const float* x, float* y, int n) {
  float sums[64];
  for (int i = 0; i < 64; i++) sums[i] = x[i * threadIdx.x];
  for (int i = 0; i < n; i++) sums[(i * 7) & 63] += sums[i & 63];
  y[threadIdx.x] = sums[n & 63];
}

// More values alive at once than the 64 registers that 1024 threads leave each.
__global__ __launch_bounds__(1024) void spill_kernel(const float* x, float* y) {
  float values[96];
#pragma unroll
  for (int i = 0; i < 96; i++) values[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; i++) y[i * 1024 + threadIdx.x] = values[i] * values[(i * 37 + 11) % 96];
}

__global__ void spin_kernel(const float* x, float* y) {
  __shared__ float sum[32];
  sum[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&sum[static_cast<int>(x[threadIdx.x]) & 31], x[threadIdx.x]);
  __syncthreads();
  y[threadIdx.x] = sum[threadIdx.x];
}

__global__ void reduction_kernel(const float* x, float* y) { atomicAdd(y, x[threadIdx.x]); }

__global__ void fetch_add_kernel(const float* x, float* y) {
  y[1 + threadIdx.x] = atomicAdd(y, x[threadIdx.x]);
}

template <class T>
__global__ void double_atomic_kernel(const T* x, T* y) {
  atomicAdd(y, x[threadIdx.x]);
}

__global__ void pair_atomic_kernel(const __nv_bfloat162* x, __nv_bfloat162* y) {
  atomicAdd(y, x[threadIdx.x]);
}

// What "float atomic" would miss: the same written by hand.
__global__ void exchange_kernel(const float* x, unsigned* y) {
  unsigned before = *y, expected;
  do {
    expected = before;
    before = atomicCAS(y, expected, __float_as_uint(__uint_as_float(expected) + x[threadIdx.x]));
  } while (before != expected);
}

__global__ void trap_kernel(float* y) {
  if (y[0] > 1) __trap();
}

__global__ void assert_kernel(float* y) { assert(y[0] < 1); }

__global__ void print_kernel(float* y) { printf("%d\n", static_cast<int>(y[0])); }

__global__ void endless_kernel() {
  for (;;) asm volatile("");
}

// The constant has type double.
__global__ void float64_kernel(float* y) { y[0] = y[1] * 1.1; }

// One element at a time, no tensor core, no asynchronous copy, no approximation.
__global__ void scalar_kernel(const float* x, float* y) {
  __shared__ float tile[32];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = x[31] + tile[31 - threadIdx.x];
}

// Integer atomics, one claim by a 64-bit exchange, vectors, float64 where it was asked for.
__global__ void good_kernel(const float4* x, float4* y, unsigned* counts,
                            unsigned long long* claim) {
  __shared__ unsigned shared[32];
  shared[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&shared[threadIdx.x & 3], 1u);
  atomicAdd(counts, 3u);
  atomicMax(counts + 1, threadIdx.x);
  if (atomicCAS(claim, 0ull, 1ull) == 0) counts[2] = threadIdx.x;
  __syncthreads();
  counts[3 + threadIdx.x] = shared[threadIdx.x];
  y[threadIdx.x] = x[threadIdx.x];
}

template <class T, int kWidth, bool kFlag>
__global__ void good_template_kernel(T* y) {
  y[threadIdx.x] = kFlag ? y[threadIdx.x] * T(kWidth) : T(0);
}

}  // namespace

const void* kernels[] = {
    (const void*)local_memory_kernel,
    (const void*)spill_kernel,
    (const void*)spin_kernel,
    (const void*)reduction_kernel,
    (const void*)fetch_add_kernel,
    (const void*)double_atomic_kernel<double>,
    (const void*)pair_atomic_kernel,
    (const void*)exchange_kernel,
    (const void*)trap_kernel,
    (const void*)assert_kernel,
    (const void*)print_kernel,
    (const void*)endless_kernel,
    (const void*)float64_kernel,
    (const void*)scalar_kernel,
    (const void*)good_kernel,
    (const void*)good_template_kernel<double, 4, true>,
    (const void*)good_template_kernel<__nv_bfloat16, 1, false>,
};

}  // namespace mlpkern::cuda
