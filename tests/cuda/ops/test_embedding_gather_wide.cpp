// The code of embedding_gather for tables beyond 2^32 rows and batches beyond 2^31 ids, at sizes
// that a test can afford.
#include <cmath>
#include <vector>

#include "cuda/device/divisor.cuh"
#include "cuda/embedding_gather/sorted.cuh"
#include "orders.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

template <class Word>
std::vector<char> gradient(EmbeddingGatherBackward args) {
  Values dweight(DType::f32, args.V * args.D);
  // More than twice the size of the 32-bit lists.
  Buffer scratch(2 * cuda::sorted_workspace(args));
  args.dweight = dweight.data(), args.workspace = scratch.data();
  run_in_every_order(
      format("words of %zu bytes", sizeof(Word)), {&dweight.buffer},
      [&] { return cuda::sum_sorted_words<float, int64_t, Word>(args, nullptr); }, [] {});
  const char* bytes = static_cast<const char*>(dweight.data());
  return {bytes, bytes + dweight.buffer.size()};
}

}  // namespace

TEST_CASE(words_of_64_bits_give_the_same_bits) {
  const int64_t N = 500, T = 3, V = 400, D = 10;
  Ids input(IndexType::i64, N * T);
  input.randomize(V);
  for (int64_t i = 0; i < input.count; i += 2) input.set(i, 7);  // one that crosses tiles
  for (int64_t i = 0; i < input.count; i += 99) input.set(i, i % 2 ? -1 : int64_t{1} << 40);
  Values doutput(DType::f32, N * T * D);
  doutput.randomize(1);
  EmbeddingGatherBackward args{};
  args.dtype = DType::f32, args.index_type = IndexType::i64;
  args.N = N, args.T = T, args.V = V, args.D = D;
  args.input = input.data(), args.input_row_stride = T, args.input_col_stride = 1;
  args.doutput = doutput.data(), args.doutput_row_stride = T * D;
  args.padding_idx = 3;
  CHECK(gradient<uint64_t>(args) == gradient<uint32_t>(args), "they differ");
}

TEST_CASE(quotients_of_64_bits) {
  for (int k = 0; k < 1000; ++k) {
    const auto b = static_cast<int64_t>(std::exp2(40 * uniform()));
    const auto a = static_cast<int64_t>(std::exp2(62 * uniform()));
    for (int64_t x : {a, a - a % b, a - a % b + b - 1})
      CHECK(cuda::quotient(x, b) == x / b, "%lld / %lld got %lld", static_cast<long long>(x),
            static_cast<long long>(b), static_cast<long long>(cuda::quotient(x, b)));
  }
}

TEST_CASE(quotients_by_multiplication) {
  for (int k = 0; k < 3000; ++k) {
    const auto d = static_cast<uint32_t>(std::exp2(31 * uniform()));
    const cuda::Divisor divisor = cuda::divisor_of(d);
    const auto a = static_cast<uint32_t>(std::exp2(31 * uniform()));
    for (uint32_t x : {0u, d - 1, d, a, a - a % d, 0x7fffffffu, 0x7fffffffu / d * d})
      CHECK(cuda::divide(x, divisor) == x / d, "%u / %u got %u", x, d, cuda::divide(x, divisor));
  }
}
