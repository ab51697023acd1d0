// The gradient of embedding_gather by 64-bit keys and positions. They are for tables and batches
// beyond 2^32 rows and 2^31 ids; here they must say what 32 bits say.
#include <cstring>
#include <vector>

#include "cuda/embedding_gather_sorted.cuh"
#include "cuda/sort.cu"
#include "orders.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

template <class Word>
std::vector<char> gradient(EmbeddingGatherBackward args) {
  Values dweight(DType::f32, args.V * args.D);
  // Twice and more what the lists of 32 bits need.
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
