// Philox4x32-10 of the kernels: the known answers of Random123, and the layout of a dropout mask.
#include "cpu/mlp/philox.h"

#include <cmath>

#include "mlp_reference.h"
#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;
using namespace mlpkern::cpu::MLPKERN_ISA;

namespace {

struct Known {
  uint32_t counter[4], key[2], words[4];
};

// kat_vectors of Random123, philox4x32-10.
const Known kKnown[] = {{{0, 0, 0, 0}, {0, 0}, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
                        {{0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF},
                         {0xFFFFFFFF, 0xFFFFFFFF},
                         {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
                        {{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344},
                         {0xA4093822, 0x299F31D0},
                         {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}}};

template <class A>
void check_mask(int64_t units, Range rows, int64_t block, double p) {
  constexpr int64_t kLane = kLanes<A>;
  const int64_t end = rows.begin + (rows.end - rows.begin + kLane - 1) / kLane * kLane;
  const int64_t step = end + 5;
  const DType dtype = sizeof(A) == 4 ? DType::f32 : DType::f64;
  Values mask(dtype, units * step);
  const DropoutKey at = {0x12345678, 0x9ABCDEF0, 0xFFFFFFFE, 0xABCD03};
  dropout_mask(static_cast<A*>(mask.data()), step, units, rows, block, p, at);
  CHECK(mask.buffer.guards_intact(), "wrote outside the mask");
  for (int64_t u = 0; u < units; ++u)
    for (int64_t n = 0; n < step; ++n) {
      const double got = mask.get(u * step + n);
      if (n < rows.begin || n >= end) {
        CHECK(std::isnan(got), "mask[%lld, %lld] is not of these rows", static_cast<long long>(u),
              static_cast<long long>(n));
        continue;
      }
      const auto words = philox4x32({static_cast<uint32_t>(u / 4), static_cast<uint32_t>(block + n),
                                     at.step, at.stream_layer},
                                    {at.key0, at.key1});
      const bool kept = words[u % 4] >= std::nearbyint(p * 4294967296.0);
      const double want = kept ? static_cast<double>(static_cast<A>(1 / (1 - p))) : 0;
      CHECK(got == want, "mask[%lld, %lld] is %g, want %g", static_cast<long long>(u),
            static_cast<long long>(n), got, want);
    }
}

}  // namespace

TEST_CASE(known_answers) {
  for (const Known& known : kKnown) {
    const auto plain =
        philox4x32({known.counter[0], known.counter[1], known.counter[2], known.counter[3]},
                   {known.key[0], known.key[1]});
    wide_words_t words[4];
    philox_rows({known.key[0], known.key[1], known.counter[2], known.counter[3]}, known.counter[0],
                wide_words_t{} + known.counter[1], words);
    for (int i = 0; i < 4; ++i) {
      CHECK(plain[i] == known.words[i], "the plain loop's word %d is %08x", i, plain[i]);
      for (int64_t lane = 0; lane < kWideLanes; ++lane) {
        const uint32_t word = static_cast<uint32_t>(words[i][lane]);
        CHECK(word == known.words[i], "word %d is %08x", i, word);
      }
    }
  }
}

TEST_CASE(rows_at_once_are_the_rows_one_by_one) {
  const DropoutKey at = {1, 2, 3, 4};
  const uint32_t first = 0xFFFFFFFF;  // row numbers wrap
  wide_words_t many[4], one[4];
  philox_rows(at, 9, every_row<1>() + first, many);
  for (int64_t r = 0; r < kWideLanes; ++r) {
    philox_rows(at, 9, wide_words_t{} + (first + static_cast<uint32_t>(r)), one);
    for (int i = 0; i < 4; ++i) {
      const uint32_t got = static_cast<uint32_t>(many[i][r]);
      const uint32_t alone = static_cast<uint32_t>(one[i][0]);
      CHECK(got == alone, "row %lld, word %d: %08x, alone %08x", static_cast<long long>(r), i, got,
            alone);
    }
  }
}

TEST_CASE(masks) {
  for (double p : {1e-12, 0.1, 0.5, 0.999, 1 - 1e-12})
    for (int64_t units : {1, 4, 7, 30})
      for (Range rows : {Range{0, 1}, Range{0, 13}, Range{32, 47}}) {
        check_mask<float>(units, rows, 0, p);
        check_mask<double>(units, rows, 384, p);
      }
}
