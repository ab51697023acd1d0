// Loops over a range that threads may share; the body gets a part of the range at a time.
#pragma once

#include "cpu/mlp/mlp.h"
#include "cpu/threads/parallel.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kTasksPerThread = 4;

// body(range) over [0, count): in one piece, or in pieces that threads take.
template <class Body>
MLPKERN_INLINE void split(bool threads, int64_t count, const Body& body) {
  if (!threads) {
    body(Range{0, count});
    return;
  }
  const int64_t wanted = kTasksPerThread * max_threads(), pieces = count < wanted ? count : wanted;
  parallel_for_dynamic(pieces, [&](int64_t i, int64_t) {
    body(Range{count * i / pieces, count * (i + 1) / pieces});
  });
}

// The same with one piece per thread, the same in every step, so that a thread reads what it wrote.
template <class Body>
MLPKERN_INLINE void split_evenly(bool threads, int64_t count, const Body& body) {
  if (!threads) {
    body(Range{0, count});
    return;
  }
  const int64_t pieces = max_threads();
  parallel_for(pieces,
               [&](int64_t i) { body(Range{count * i / pieces, count * (i + 1) / pieces}); });
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
