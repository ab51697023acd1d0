// Arithmetics of mma.sync: how the elements of a fragment are converted before the product.
//
//   Tf32   float32 rounded to TF32 (11 significant bits)
//   Split  float32 as a sum of two TF32 numbers, big + small; the product without small * small has
//          the accuracy of float32
//   Half   bfloat16 and float16
#pragma once

#include <type_traits>

#include "cuda/device/dtype.cuh"
#include "cuda/device/ptx.cuh"

namespace mlpkern::cuda {

// What is known of the float32 elements of a fragment: that they are finite, or already `rounded`.
enum class Values { any, finite, rounded };

struct Tf32 {
  using type = float;
  static constexpr bool kSplit = false;

  // Adds half a unit of TF32; the mma truncates, so the result is rounded to nearest. Infinity and
  // NaN stay.
  template <Values values>
  __device__ __forceinline__ static uint32_t round(uint32_t x) {
    if constexpr (values == Values::rounded) return x;
    if constexpr (values == Values::finite) return x + 0x1000;
    return fabsf(__uint_as_float(x)) < INFINITY ? x + 0x1000 : x;
  }
  // The form to store x in where only products read it: rounded once for all of them.
  template <Values values>
  __device__ __forceinline__ static float rounded(float x) {
    return __uint_as_float(round<values>(__float_as_uint(x)));
  }

  template <int n>
  struct Operand {
    uint32_t at[n];
    template <Values values = Values::any>
    __device__ __forceinline__ void set(const uint32_t* raw) {
#pragma unroll
      for (int i = 0; i < n; ++i) at[i] = round<values>(raw[i]);
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

  template <Values>
  __device__ __forceinline__ static float rounded(float x) {
    return x;
  }

  // NaN in x stays in `small`; infinity becomes NaN, see exact_sum().
  template <int n>
  struct Operand {
    uint32_t big[n], small[n];
    template <Values = Values::any>
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

  template <Values>
  __device__ __forceinline__ static float rounded(float x) {
    return x;
  }

  template <int n>
  struct Operand {
    uint32_t at[n];
    template <Values = Values::any>
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
