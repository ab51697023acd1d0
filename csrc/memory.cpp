#include "memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace mlpkern::memory {
namespace {

struct Block {
  void* address;
  size_t bytes;
};

// The oldest block stands first, so that trimming drops what has been idle longest.
struct Pool {
  std::mutex mutex;
  std::vector<Block> kept;
  Info state{0, size_t{1} << 30, 0, 0};

  Pool() {
    if (const char* limit = std::getenv("MLPKERN_CACHE_LIMIT"))
      state.limit_bytes = std::strtoull(limit, nullptr, 10);
  }

  void trim(size_t target) {
    size_t dropped = 0;
    while (state.kept_bytes > target && dropped < kept.size()) {
      std::free(kept[dropped].address);
      state.kept_bytes -= kept[dropped].bytes;
      ++dropped;
    }
    kept.erase(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(dropped));
  }
};

// Never destroyed: tensors may outlive the destructors of static objects.
Pool& pool() {
  static Pool* shared = new Pool;
  return *shared;
}

// Size classes an eighth of a power of two apart: at most 12.5 % of a block is unused.
size_t size_class(size_t bytes) {
  size_t step = kPooledBytes / 8;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

// Blocks of several huge pages ask for them: fewer page faults at first, fewer translations after
// (packed operands of a matrix product are read 5 % faster). Smaller ones would only round up.
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

// The scratch that a thread keeps; taken out while in use, so that nothing can share it.
struct Spare {
  void* block = nullptr;
  size_t bytes = 0;
  ~Spare() { std::free(block); }
};
thread_local Spare spare;

}  // namespace

Scratch::Scratch(size_t bytes) : bytes_(bytes), block_(nullptr) {
  if (!bytes) return;
  if (bytes >= kPooledBytes) {
    block_ = acquire(bytes);
    return;
  }
  if (spare.bytes < bytes) {
    std::free(spare.block);
    spare = {};
    bytes_ = (bytes + 4095) / 4096 * 4096;
    block_ = allocate(bytes_);
    return;
  }
  block_ = spare.block;
  bytes_ = spare.bytes;
  spare = {};
}

Scratch::~Scratch() {
  if (!block_) return;
  if (bytes_ >= kPooledBytes) {
    release(block_, bytes_);
    return;
  }
  std::free(spare.block);
  spare.block = block_;
  spare.bytes = bytes_;
}

void* acquire(size_t bytes) {
  if (bytes < kPooledBytes) return allocate(bytes ? bytes : 1);
  const size_t wanted = size_class(bytes);
  Pool& p = pool();
  {
    std::lock_guard<std::mutex> lock(p.mutex);
    for (size_t i = p.kept.size(); i-- > 0;) {
      if (p.kept[i].bytes != wanted) continue;
      void* block = p.kept[i].address;
      p.kept.erase(p.kept.begin() + static_cast<std::ptrdiff_t>(i));
      p.state.kept_bytes -= wanted;
      ++p.state.hits;
      return block;
    }
    ++p.state.misses;
  }
  return allocate(wanted);
}

void release(void* block, size_t bytes) {
  if (bytes < kPooledBytes) return std::free(block);
  const size_t held = size_class(bytes);
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.mutex);
  if (held > p.state.limit_bytes) return std::free(block);
  p.trim(p.state.limit_bytes - held);
  p.kept.push_back({block, held});
  p.state.kept_bytes += held;
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
