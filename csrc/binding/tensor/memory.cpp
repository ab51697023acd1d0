#include "binding/tensor/memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace mlpkern::memory {
namespace {

// Size classes are an eighth of a power of two apart: at most 12.5 % of a block is unused.
struct SizeClass {
  size_t index, bytes;
  explicit SizeClass(size_t wanted) : index(0) {
    size_t step = kPooledBytes / 8;
    while (step * 16 < wanted) step *= 2, index += 8;
    const size_t steps = (wanted + step - 1) / step;  // 8 to 16
    index += steps - 8;
    bytes = steps * step;
  }
};
constexpr size_t kClasses = 8 * 40;

struct Block {
  void* address;
  uint64_t freed;  // its place in the order of all releases
};

struct Pool {
  std::mutex mutex;
  std::vector<Block> kept[kClasses];  // by class, the latest last
  size_t class_bytes[kClasses] = {};
  uint64_t releases = 0;
  Info state{0, size_t{1} << 30, 0, 0};

  // Frees what has been idle longest until at most `target` bytes are kept.
  void trim(size_t target) {
    while (state.kept_bytes > target) {
      size_t oldest = kClasses;
      for (size_t i = 0; i < kClasses; ++i)
        if (!kept[i].empty() &&
            (oldest == kClasses || kept[i].front().freed < kept[oldest].front().freed))
          oldest = i;
      std::free(kept[oldest].front().address);
      kept[oldest].erase(kept[oldest].begin());
      state.kept_bytes -= class_bytes[oldest];
    }
  }
};

// Never destroyed: tensors may outlive the destructors of static objects.
Pool& pool() {
  static Pool* shared = new Pool;
  return *shared;
}

// Asks for huge pages for blocks of several of them: fewer page faults at first, fewer TLB misses
// afterwards (packed operands of a matrix product are read 5 % faster).
constexpr size_t kHugePage = size_t{1} << 21;

void* allocate(size_t bytes) {
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!block) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == kHugePage) madvise(block, bytes, MADV_HUGEPAGE);
#endif
  return block;
}

// The scratch that a thread keeps; taken out while in use, so that no other call shares it.
struct Spare {
  void* block = nullptr;
  size_t bytes = 0;
  ~Spare() { std::free(block); }
};
thread_local Spare spare;

}  // namespace

Scratch::Scratch(size_t bytes) : bytes_(bytes), block_(nullptr) {
  if (!bytes) return;
  if (bytes >= kSpareBytes) {
    block_ = acquire(bytes);
    return;
  }
  if (spare.bytes < bytes) {
    std::free(spare.block);
    spare = {};
    bytes_ = (bytes + 4095) / 4096 * 4096;  // at most kSpareBytes
    block_ = allocate(bytes_);
    return;
  }
  block_ = spare.block;
  bytes_ = spare.bytes;
  spare = {};
}

Scratch::~Scratch() {
  if (!block_) return;
  if (bytes_ >= kSpareBytes) {
    release(block_, bytes_);
    return;
  }
  std::free(spare.block);
  spare.block = block_;
  spare.bytes = bytes_;
}

void* acquire(size_t bytes) {
  if (bytes < kPooledBytes) return allocate(bytes ? bytes : 1);
  const SizeClass wanted(bytes);
  Pool& p = pool();
  {
    std::lock_guard<std::mutex> lock(p.mutex);
    std::vector<Block>& kept = p.kept[wanted.index];
    if (!kept.empty()) {
      void* block = kept.back().address;
      kept.pop_back();
      p.state.kept_bytes -= wanted.bytes;
      ++p.state.hits;
      return block;
    }
    ++p.state.misses;
  }
  return allocate(wanted.bytes);
}

void release(void* block, size_t bytes) {
  if (bytes < kPooledBytes) return std::free(block);
  const SizeClass held(bytes);
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  if (held.bytes > p.state.limit_bytes) return std::free(block);
  p.trim(p.state.limit_bytes - held.bytes);
  p.class_bytes[held.index] = held.bytes;
  p.kept[held.index].push_back({block, p.releases++});
  p.state.kept_bytes += held.bytes;
}

Info info() {
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  return p.state;
}

void set_limit(size_t bytes) {
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  p.state.limit_bytes = bytes;
  p.trim(bytes);
}

void empty() {
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  p.trim(0);
}

}  // namespace mlpkern::memory
