// One thread of the block that trains a narrow model: the model and the batches in shared memory.
#pragma once

#include "cuda/device/mma_fragments.cuh"
#include "cuda/model/narrow/layout.cuh"
#include "cuda/model/run.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kNarrowDepth = kNarrowWidth / 8;  // mma steps and column tiles of 32 elements
constexpr int kRowTiles = kNarrowRows / 16;     // of a block of rows
constexpr int kUnitTiles = kNarrowUnits / 8;    // columns of a warp
constexpr int kRowLanes = kNarrowWidth / 4;     // lanes of a row of logits or dx

struct NarrowModel {
  __device__ __forceinline__ NarrowModel(const TrainingRun& run, float* shared, bool sums)
      : r_(run),
        z_(run.sizes),
        at_(run.sizes, sums),
        s_(shared),
        m_(static_cast<int>(blockIdx.x)),
        inputs_(z_.T * z_.D),
        units_(z_.hidden[0]),
        blocks_(static_cast<int>((run.N + kNarrowRows - 1) / kNarrowRows)),
        position_(l_.lane / z_.D),
        column_(l_.lane % z_.D),
        input_drops_(run.input_dropout[m_] > 0),
        hidden_drops_(run.hidden_dropout[m_] > 0) {}

  // ---- the model in shared memory ----

  // body(element of the caller's tensor i, element in shared memory) for every parameter; leaves
  // out tensor i where bit i of `skipped` is set.
  template <class Body>
  __device__ __forceinline__ void for_parameters(uint32_t skipped, const Body& body) {
    const int threads = static_cast<int>(blockDim.x), thread = l_.thread;
    const auto end = [&](int tensor, int size) { return skipped >> tensor & 1 ? 0 : size; };
    float* table = r_.parameters.at(0, m_);
    for (int i = thread; i < end(0, z_.V * z_.D); i += threads)
      body(table[i], s_[at_.embedding + i]);
    float *w1 = r_.parameters.weight(0, m_), *w2 = r_.parameters.weight(1, m_);
    for (int i = thread; i < end(1, units_ * inputs_); i += threads)
      body(w1[i], s_[at_.w1 + i / inputs_ * kNarrowStride + i % inputs_]);
    for (int i = thread; i < end(3, z_.C * units_); i += threads)
      body(w2[i], s_[at_.w2 + i % units_ * kNarrowStride + i / units_]);
    float *b1 = r_.parameters.bias(0, m_), *b2 = r_.parameters.bias(1, m_);
    for (int i = thread; i < end(2, units_); i += threads) body(b1[i], s_[at_.b1 + i]);
    for (int i = thread; i < end(4, z_.C); i += threads) body(b2[i], s_[at_.b2 + i]);
  }

  __device__ __forceinline__ void load() {
    // zero padding contributes nothing to products and sums
    for (int i = l_.thread; i < at_.total; i += static_cast<int>(blockDim.x)) s_[i] = 0.0f;
    __syncthreads();
    for_parameters(0, [](float& given, float& mine) { mine = given; });
  }

  __device__ __forceinline__ void store() {
    for_parameters(r_.frozen, [](float& given, float& mine) { given = mine; });
  }

  // One parameter, element i of the caller's tensor; its moments stay in the caller's memory.
  template <Rule rule>
  __device__ __forceinline__ void update(const StepConstants& c, float& parameter, float gradient,
                                         int tensor, int i, bool decays) {
    float first = 0.0f, second = 0.0f;
    float *firsts = nullptr, *seconds = nullptr;
    if constexpr (kHasFirst<rule>) firsts = r_.first.at(tensor, m_) + i, first = *firsts;
    if constexpr (kHasSecond<rule>) seconds = r_.second.at(tensor, m_) + i, second = *seconds;
    parameter = updated<rule>(r_.rule, c, parameter, gradient, first, second, decays);
    if constexpr (kHasFirst<rule>) *firsts = first;
    if constexpr (kHasSecond<rule>) *seconds = second;
  }

  // ---- rows and ids; two buffers of ids, for this block of rows and for the next ----

  __device__ __forceinline__ int* ids(int buffer, int position) {
    return reinterpret_cast<int*>(s_ + at_.ids) + (buffer * (z_.T + 1) + position) * kNarrowRows;
  }
  __device__ __forceinline__ int* rows() { return reinterpret_cast<int*>(s_ + at_.rows); }

  // Block b of step s; the one after it.
  struct Block {
    int64_t s;
    int b;
  };
  template <bool sums>
  __device__ __forceinline__ Block after(Block at) const {
    return at.b + 1 == blocks<sums>() ? Block{at.s + 1, 0} : Block{at.s, at.b + 1};
  }

  // Unless gradients are summed, a batch is a single block of rows.
  template <bool sums>
  __device__ __forceinline__ int blocks() const {
    return sums ? blocks_ : 1;
  }

  // The row number of this lane; past the end of a batch, that of its last row.
  __device__ __forceinline__ int load_row(Block at) const {
    const int n = at.b * kNarrowRows + l_.lane, N = static_cast<int>(r_.N);
    return static_cast<int>(r_.batch_row(m_, at.s, n < N ? n : N - 1));
  }
  __device__ __forceinline__ int load_symbol(int64_t row, int position) const {
    return position < z_.T ? load_input(r_.examples, row, position) : load_target(r_.examples, row);
  }

  __device__ __forceinline__ Dropout* dropouts() {
    return reinterpret_cast<Dropout*>(s_ + at_.dropouts);
  }

  __device__ __forceinline__ float* loss_of(int64_t s) {
    return r_.losses + int64_t{m_} * r_.S + s;
  }

  __device__ __forceinline__ StepConstants* constants(int64_t s) {
    return reinterpret_cast<StepConstants*>(s_ + at_.constants) + (s & 1);
  }
  __device__ __forceinline__ void load_constants(int64_t s) {
    cp_async<sizeof(StepConstants)>(constants(s), r_.constants + int64_t{m_} * r_.S + s,
                                    sizeof(StepConstants));
    cp_async_commit();
  }

  __device__ __forceinline__ int unit0() const { return l_.warp * kNarrowUnits; }

  __device__ __forceinline__ float* part() { return s_ + at_.parts + l_.warp * kNarrowPart; }

  const TrainingRun& r_;
  const ModelSizes& z_;
  Lane l_;
  const NarrowLayout at_;
  float* const s_;
  int m_;
  const int inputs_, units_, blocks_;
  const int position_, column_;  // of the input that this lane gathers
  const bool input_drops_, hidden_drops_;
  int buffer_ = 0;  // which of two arrays has the ids of this block of rows
};

}  // namespace
}  // namespace mlpkern::cuda
