// A bounded pool of host blocks.
//
// The C library and torch return large blocks to the system at once, and every new page costs a
// page fault: with pages of 4 KB several times the cost of writing the page. So outputs and scratch
// of the CPU kernels come from this pool: a freed block of at least kPooledBytes is kept for the
// next request of its size class, up to a limit. Smaller blocks go to the C library, whose bins
// serve them well.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlpkern::memory {

constexpr size_t kPooledBytes = size_t{1} << 14;

// 64-byte aligned; throws std::bad_alloc. `release` takes the same `bytes`. Both are thread-safe.
void* acquire(size_t bytes);
void release(void* block, size_t bytes);

// Scratch of one kernel call. Up to kSpareBytes each thread keeps one block from call to call,
// without a lock.
constexpr size_t kSpareBytes = size_t{1} << 20;
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get() const { return block_; }

 private:
  size_t bytes_;
  void* block_;
};

struct Info {
  uint64_t kept_bytes, limit_bytes, hits, misses;
};
Info info();

// Limit of the bytes kept for reuse, 1 GiB by default; lowering it frees at once.
void set_limit(size_t bytes);

// Frees all kept blocks.
void empty();

}  // namespace mlpkern::memory
