// The shim's arithmetic: 16-bit formats against conversions through double, matrix products against
// plain loops, approximate instructions against their error bounds.
#include <cmath>
#include <csignal>
#include <cstring>

#include "cuda/device/dtype.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/ptx.cuh"
#include "orders.h"
#include "refusals.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// --- Matrix products -----------------------------------------------------------------------------
// One warp: D (16, 8) += A (16, k) B (k, 8), row-major, elements in the low bits of a word each.
enum class Type { tf32, bf16, f16 };

template <Type type, bool bad>
__global__ void product(const uint32_t* a, const uint32_t* b, float* d) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const int n = 8;
  uint32_t fa[4], fb[2];
  if (type == Type::tf32) {
    for (int i = 0; i < 4; ++i) fa[i] = a[(g + i % 2 * 8) * 8 + t + i / 2 * 4];
    for (int i = 0; i < 2; ++i) fb[i] = b[(t + i * 4) * n + g];
  } else {
    for (int i = 0; i < 4; ++i) {
      const uint32_t* pair = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
      fa[i] = pair[0] | pair[1] << 16;
    }
    for (int i = 0; i < 2; ++i) {
      const uint32_t* pair = b + (2 * t + i * 8) * n + g;
      fb[i] = pair[0] | pair[n] << 16;
    }
  }
  if (bad && threadIdx.x == 31) return;
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = d[(g + i / 2 * 8) * n + 2 * t + i % 2];
  if (type == Type::tf32)
    cuda::mma_tf32(sum, fa, fb);
  else if (type == Type::bf16)
    cuda::mma_bf16(sum, fa, fb);
  else
    cuda::mma_f16(sum, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * n + 2 * t + i % 2] = sum[i];
}

template <Type type>
void check_product(double scale) {
  const int depth = type == Type::tf32 ? 8 : 16;
  const DType dtype = type == Type::bf16  ? DType::bf16
                      : type == Type::f16 ? DType::f16
                                          : DType::f32;
  Values a(dtype, 16 * depth), b(dtype, depth * 8), start(DType::f32, 128), d(DType::f32, 128);
  for (Values* values : {&a, &b, &start}) values->randomize(scale);
  const auto words = [&](Values& from) {
    std::vector<uint32_t> all(static_cast<size_t>(from.count), 0);
    const size_t size = item_size(dtype);
    for (int64_t i = 0; i < from.count; ++i)
      std::memcpy(&all[i], static_cast<char*>(from.data()) + i * size, size);
    return all;
  };
  const auto element = [&](const Values& from, int64_t i) {  // tf32 has 10 bits after the point
    if (type != Type::tf32) return from.get(i);
    const float x = static_cast<float>(from.get(i));
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return double{float_of(bits & 0xFFFFE000u)};
  };
  const auto a_words = words(a), b_words = words(b);
  run_in_every_order(
      "product", {&d.buffer},
      [&] {
        std::memcpy(d.data(), start.data(), 128 * sizeof(float));
        return cuda::launch<product<type, false>>(1, 32, 0, nullptr, a_words.data(), b_words.data(),
                                                  static_cast<float*>(d.data()));
      },
      [&] {
        for (int m = 0; m < 16; ++m)
          for (int n = 0; n < 8; ++n) {
            double want = start.get(m * 8 + n), largest = std::fabs(want);
            for (int k = 0; k < depth; ++k) {
              const double term = element(a, m * depth + k) * element(b, k * 8 + n);
              want += term;
              largest = std::fmax(largest, std::fabs(term));
            }
            // Each term is truncated at 2^-24 of the largest, each sum at its own last bit.
            const double slack = (depth + 2) * 0x1p-23 * largest + 2 * 0x1p-23 * std::fabs(want);
            const double got = d.get(m * 8 + n);
            CHECK(std::fabs(got - want) <= slack, "d[%d][%d] got %.9g, want %.9g", m, n, got, want);
          }
      });
}

__global__ void transpose_tiles(const uint16_t* input, uint32_t* output, bool transposed,
                                int offset) {
  __shared__ __align__(16) uint16_t tiles[33][8];
  for (int i = 0; i < 8; ++i) tiles[threadIdx.x][i] = input[threadIdx.x * 8 + i];
  __syncwarp();
  uint32_t r[4];
  if (transposed)
    cuda::ldmatrix_x4_transposed(r, &tiles[threadIdx.x][offset]);
  else
    cuda::ldmatrix_x4(r, &tiles[threadIdx.x][offset]);
  for (int i = 0; i < 4; ++i) output[threadIdx.x * 4 + i] = r[i];
}

}  // namespace

TEST_CASE(bfloat16_rounds_to_nearest_even) {
  Values one(DType::bf16, 1);
  uint16_t want;
  for (uint32_t high = 0; high < 0x10000; ++high)
    for (uint32_t low : {0x0000u, 0x0001u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
      const float x = float_of(high << 16 | low);
      const cuda::bf16 got = __float2bfloat16_rn(x);
      one.set(0, double{x});
      std::memcpy(&want, one.data(), sizeof want);
      if (std::isnan(x))
        CHECK(std::isnan(__bfloat162float(got)), "%08x got %04x", high << 16 | low, got.bits);
      else
        CHECK(got.bits == want, "%08x got %04x, want %04x", high << 16 | low, got.bits, want);
    }
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = __bfloat162float(__ushort_as_bfloat16(static_cast<uint16_t>(bits)));
    CHECK(std::isnan(x) || x == float_of(bits << 16), "%04x got %g", bits, x);
  }
}

TEST_CASE(float16_rounds_to_nearest_even) {
  Values one(DType::f16, 1);
  uint16_t want;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {  // exact values and their neighbors
    const auto narrow = static_cast<uint16_t>(bits);
    const float x = __half2float(__ushort_as_half(narrow));
    std::memcpy(one.data(), &narrow, sizeof narrow);
    CHECK(std::isnan(x) ? std::isnan(one.get(0)) : x == one.get(0), "%04x got %g, want %g", bits, x,
          one.get(0));
    if (!std::isfinite(x)) continue;
    const auto wider = static_cast<uint16_t>(narrow + 1);
    const float next = __half2float(__ushort_as_half(wider));
    const float middle = std::isfinite(next) ? x + (next - x) / 2 : std::copysign(65520.0f, x);
    for (float y : {x, middle, std::nextafterf(middle, 0), std::nextafterf(middle, 1e9f),
                    std::nextafterf(middle, -1e9f)}) {
      one.set(0, double{y});
      std::memcpy(&want, one.data(), sizeof want);
      const uint16_t got = __half_as_ushort(__float2half_rn(y));
      CHECK(got == want, "%.9g got %04x, want %04x", y, got, want);
    }
  }
  for (float y : {1e-30f, -1e-8f, 1e30f, -INFINITY}) {
    one.set(0, double{y});
    std::memcpy(&want, one.data(), sizeof want);
    CHECK(__half_as_ushort(__float2half_rn(y)) == want, "%g", y);
  }
  CHECK(std::isnan(__half2float(__float2half_rn(NAN))), "NaN got lost");
}

TEST_CASE(products_of_a_warp_equal_plain_loops) {
  for (double scale : {1.0, 100.0, 0x1p-9}) {
    check_product<Type::tf32>(scale);
    check_product<Type::bf16>(scale);
    check_product<Type::f16>(scale);
  }
}

// Sums that show how a tensor core adds: each term truncated towards zero at 2^-24 of the largest.
TEST_CASE(products_of_a_warp_cut_off) {
  std::vector<uint32_t> a(128, 0), b(64, 0);
  const float small = 0x1p-24f, one = 1;
  std::memcpy(&a[0], &one, 4), std::memcpy(&b[0], &one, 4);
  const auto add_one = [&](float start) {  // start + 1, in D[0][0]
    std::vector<float> d(128, start);
    cuda::launch<product<Type::tf32, false>>(1, 32, 0, nullptr, a.data(), b.data(), d.data());
    return d[0];
  };
  CHECK(add_one(small) == 1, "got %.9g", add_one(small));
  CHECK(add_one(3 * small) == 1 + 0x1p-23f, "got %.9g", add_one(3 * small));
  CHECK(add_one(0.75f * small + 1) == 2, "got %.9g", add_one(0.75f * small + 1));
  CHECK(add_one(-small) == 1 - 0x1p-24f, "got %.9g", add_one(-small));
  CHECK(add_one(-small / 2) == 1, "got %.9g", add_one(-small / 2));
  CHECK(std::isnan(add_one(NAN)) && std::isinf(add_one(INFINITY)), "NaN or infinity got lost");
}

TEST_CASE(all_lanes_take_part_in_a_product) {
  std::vector<uint32_t> a(128, 0), b(64, 0);
  std::vector<float> d(128, 0);
  const auto go = [&](auto kernel) { kernel(); };
  CHECK_ACCEPTED(go([&] {
    cuda::launch<product<Type::tf32, false>>(1, 32, 0, nullptr, a.data(), b.data(), d.data());
  }));
  fiber::set_order(fiber::Order::forward);
  CHECK_ABORTS("31 has exited", go([&] {
                 cuda::launch<product<Type::tf32, true>>(1, 32, 0, nullptr, a.data(), b.data(),
                                                         d.data());
               }));
}

TEST_CASE(matrices_come_to_the_lanes_that_multiply) {
  std::vector<uint16_t> input(32 * 8);
  for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<uint16_t>(1000 + i);
  std::vector<uint32_t> output(128);
  for (bool transposed : {false, true}) {
    cuda::launch<transpose_tiles>(1, 32, 0, nullptr, input.data(), output.data(), transposed, 0);
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 2; ++j) {
          const int g = lane / 4, column = 2 * (lane % 4) + j;
          const int at = i * 64 + (transposed ? column * 8 + g : g * 8 + column);
          const uint32_t got = output[lane * 4 + i] >> 16 * j & 0xFFFF;
          CHECK(got == input[at], "lane %d, matrix %d: got %u, want %u", lane, i, got, input[at]);
        }
  }
  const auto misaligned = [&] {
    cuda::launch<transpose_tiles>(1, 32, 0, nullptr, input.data(), output.data(), false, 1);
  };
  CHECK_ABORTS("no multiple of 16 bytes", misaligned());
}

TEST_CASE(approximations_are_as_bad_as_they_may_be) {
  double worst_ex2 = 0, worst_rcp = 0, worst_tanh = 0, worst_log = 0;
  for (int i = 0; i < 20000; ++i) {
    const float x = static_cast<float>(uniform() * 20 - 10), positive = std::fabs(x) + 1e-3f;
    const auto off = [](float got, double want) { return std::fabs(got - want) / std::fabs(want); };
    worst_ex2 = std::fmax(worst_ex2, off(cuda::ex2_approx(x), std::exp2(double{x})));
    worst_rcp = std::fmax(worst_rcp, off(cuda::rcp_approx(positive), 1 / double{positive}));
    worst_tanh = std::fmax(worst_tanh, off(cuda::tanh_approx(x), std::tanh(double{x})));
    worst_log = std::fmax(worst_log, std::fabs(__logf(positive) - std::log(double{positive})) /
                                         std::fmax(1, std::fabs(std::log(double{positive}))));
  }
  // Between the bound of the manual and that bound plus one rounding to float32.
  CHECK(worst_ex2 > 0x1p-23 && worst_ex2 <= 0x1p-22 + 0x1p-24, "ex2 %g", worst_ex2);
  CHECK(worst_rcp > 0x1p-24 && worst_rcp <= 0x1p-23 + 0x1p-24, "rcp %g", worst_rcp);
  CHECK(worst_tanh > 0x1p-12 && worst_tanh <= 0x1p-11 + 0x1p-24, "tanh %g", worst_tanh);
  CHECK(worst_log > 0x1p-24 && worst_log <= 0x1p-21, "log %g", worst_log);
  CHECK(cuda::ex2_approx(0) == 1 && cuda::ex2_approx(-INFINITY) == 0, "ex2");
  CHECK(cuda::ex2_approx(-130) == 0, "2^-130 is flushed");
  CHECK(cuda::rcp_approx(INFINITY) == 0 && cuda::rcp_approx(4) == 0.25f, "rcp");
  CHECK(std::isnan(cuda::tanh_approx(NAN)) && cuda::tanh_approx(0) == 0, "tanh");
}
