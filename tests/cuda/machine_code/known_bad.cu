// Kernels that the checks of the machine code must refuse, and at the end some that they must
// accept. tests/gpu/test_cuda_machine_code.py names the rule that each breaks.
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

// More live values than the 64 registers per thread that 1024 threads leave.
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

// A floating-point atomic written by hand, which the rule "float atomic" would miss.
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

__device__ void mma(float (&d)[4], const unsigned* operands) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(operands[0]), "r"(operands[1]), "r"(operands[2]), "r"(operands[3]), "r"(operands[4]),
        "r"(operands[5]));
}

// The even lanes multiply without the others.
__global__ void mma_in_a_branch_kernel(const unsigned* x, float* y) {
  float d[4] = {};
  if (threadIdx.x % 2 == 0) {
    for (unsigned i = 0; i < x[0]; i++) mma(d, x + 8 * i + threadIdx.x);
    for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = d[i];
  }
}

// The last lanes have exited before the others multiply.
__global__ void mma_after_exit_kernel(const unsigned* x, float* y, unsigned n) {
  if (threadIdx.x >= n) return;
  float d[4] = {};
  mma(d, x + threadIdx.x);
  for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = d[i];
}

// A lane leaves the loop when its own count is reached.
__global__ void mma_in_a_loop_kernel(const unsigned* x, float* y) {
  float d[4] = {};
  for (unsigned i = 0; i < x[threadIdx.x]; i++) mma(d, x + 8 * i + threadIdx.x);
  for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = d[i];
}

__global__ void ldmatrix_in_a_branch_kernel(unsigned* y) {
  __shared__ __align__(16) unsigned tile[128];
  for (int i = 0; i < 4; i++) tile[threadIdx.x * 4 + i] = y[threadIdx.x * 4 + i];
  __syncthreads();
  unsigned r[4] = {};
  if (y[threadIdx.x] > 7) {
    const auto row = static_cast<unsigned>(__cvta_generic_to_shared(tile + threadIdx.x * 4));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
  }
  for (int i = 0; i < 4; i++) y[threadIdx.x * 4 + i] = r[i];
}

// Divergent branches before, between and after products that all lanes execute; and products in a
// loop and a branch that are uniform in a block.
__global__ void good_mma_kernel(const unsigned* x, float* y, unsigned n) {
  float d[4] = {};
  unsigned sum = 0;
  for (unsigned i = 0; i < x[threadIdx.x]; i++) sum += x[i * threadIdx.x];
  for (unsigned i = 0; i < n; i++) {
    __syncwarp();
    mma(d, x + 8 * i + threadIdx.x);
    if (d[0] > 1) y[sum] = d[1];
  }
  if (blockIdx.x == 0) mma(d, x + sum);
  if (threadIdx.x < n)
    for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = d[i];
}

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
    (const void*)mma_in_a_branch_kernel,
    (const void*)mma_after_exit_kernel,
    (const void*)mma_in_a_loop_kernel,
    (const void*)ldmatrix_in_a_branch_kernel,
    (const void*)good_mma_kernel,
    (const void*)scalar_kernel,
    (const void*)good_kernel,
    (const void*)good_template_kernel<double, 4, true>,
    (const void*)good_template_kernel<__nv_bfloat16, 1, false>,
};

}  // namespace mlpkern::cuda
