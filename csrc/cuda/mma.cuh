// Arithmetic of mma.sync: what becomes of the elements of a fragment before they are multiplied.
//
//   Tf32   float32 rounded to TF32 (11 significant bits)
//   Split  float32 as a sum of two TF32 numbers, big + small; the product without small * small has
//          the accuracy of float32
//   Half   bfloat16 and float16
#pragma once

#include <type_traits>

#include "cuda/dtype.cuh"
#include "cuda/ptx.cuh"

namespace mlpkern::cuda {

// Adds half a unit of TF32, whose bits the mma cuts off: rounds to nearest. Infinity and NaN pass.
__device__ __forceinline__ uint32_t round_to_tf32(uint32_t x) {
  return fabsf(__uint_as_float(x)) < INFINITY ? x + 0x1000 : x;
}

struct Tf32 {
  using type = float;
  static constexpr bool kSplit = false;

  template <int n>
  struct Operand {
    uint32_t at[n];
    __device__ __forceinline__ void set(const uint32_t* raw) {
#pragma unroll
      for (int i = 0; i < n; ++i) at[i] = round_to_tf32(raw[i]);
    }
  };
  __device__ __forceinline__ static void multiply(float (&d)[4], const Operand<4>& a,
                                                  const Operand<2>& b) {
    mma_tf32(d, a.at, b.at);
  }
};

struct Split {
  using type = float;
  static constexpr bool kSplit = true;

  // NaN in x stays in `small`; infinity becomes NaN, see exact_sum().
  template <int n>
  struct Operand {
    uint32_t big[n], small[n];
    __device__ __forceinline__ void set(const uint32_t* raw) {
#pragma unroll
      for (int i = 0; i < n; ++i) {
        big[i] = (raw[i] + 0x1000) & 0xffffe000;
        const float rest = __uint_as_float(raw[i]) - __uint_as_float(big[i]);
        small[i] = __float_as_uint(rest);
      }
    }
  };
  __device__ __forceinline__ static void multiply(float (&d)[4], const Operand<4>& a,
                                                  const Operand<2>& b) {
    mma_tf32(d, a.small, b.big);
    mma_tf32(d, a.big, b.small);
    mma_tf32(d, a.big, b.big);
  }
};

template <class T>
struct Half {
  using type = T;
  static constexpr bool kSplit = false;

  template <int n>
  struct Operand {
    uint32_t at[n];
    __device__ __forceinline__ void set(const uint32_t* raw) {
#pragma unroll
      for (int i = 0; i < n; ++i) at[i] = raw[i];
    }
  };
  __device__ __forceinline__ static void multiply(float (&d)[4], const Operand<4>& a,
                                                  const Operand<2>& b) {
    if constexpr (std::is_same_v<T, bf16>)
      mma_bf16(d, a.at, b.at);
    else
      mma_f16(d, a.at, b.at);
  }
};

}  // namespace mlpkern::cuda
