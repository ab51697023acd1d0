// Twin of csrc/cuda/device/ptx.cuh: the same functions, in plain C++.
#pragma once

#include <cuda_runtime.h>

#include "fiber/builtins/async_copy.h"
#include "fiber/builtins/matrix.h"

namespace mlpkern::cuda {

// --- Matrix products of one warp -----------------------------------------------------------------
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     Site site = Site::here()) {
  fiber::mma(fiber::Operand::tf32, d, a, b, site);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     Site site = Site::here()) {
  fiber::mma(fiber::Operand::bf16, d, a, b, site);
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    Site site = Site::here()) {
  fiber::mma(fiber::Operand::f16, d, a, b, site);
}

// --- Shared memory -------------------------------------------------------------------------------
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Site site = Site::here()) {
  fiber::ldmatrix_x4(r, row, false, site);
}
inline void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row, Site site = Site::here()) {
  fiber::ldmatrix_x4(r, row, true, site);
}

// --- Copies from global to shared memory ---------------------------------------------------------
template <int bytes>
void cp_async(void* to, const void* from, int valid, Site site = Site::here()) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  fiber::async_copy(to, from, bytes, valid, site);
}
inline void cp_async_commit() { fiber::async_copy_commit(); }
template <int pending>
void cp_async_wait(Site site = Site::here()) {
  fiber::async_copy_wait(pending, site);
}

// --- Arithmetic ----------------------------------------------------------------------------------
inline float ex2_approx(float x) { return fiber::ex2_approx(x); }
inline float rcp_approx(float x) { return fiber::rcp_approx(x); }
inline float tanh_approx(float x) { return fiber::tanh_approx(x); }

// --- Threads -------------------------------------------------------------------------------------
inline int thread_anew() { return static_cast<int>(threadIdx.x); }
inline int block_anew() { return static_cast<int>(blockIdx.x); }

}  // namespace mlpkern::cuda
