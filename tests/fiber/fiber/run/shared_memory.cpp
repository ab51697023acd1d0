#include "fiber/run/shared_memory.h"

#include <link.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace mlpkern::fiber {
namespace {

constexpr size_t kGuard = 512;  // bytes on each side of the dynamic part
constexpr unsigned char kGuardByte = 0xA5;

struct Segment {
  const void* code;
  void* data;
  size_t bytes;
};

// The thread-local segment, for this CPU thread, of the module that holds segment->code.
int find_segment(dl_phdr_info* module, size_t, void* result) {
  auto* segment = static_cast<Segment*>(result);
  const auto code = reinterpret_cast<uintptr_t>(segment->code);
  bool holds_code = false;
  size_t bytes = 0;
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const auto& header = module->dlpi_phdr[i];
    const uintptr_t start = module->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD && code >= start && code - start < header.p_memsz)
      holds_code = true;
    if (header.p_type == PT_TLS) bytes = header.p_memsz;
  }
  if (!holds_code) return 0;
  if (module->dlpi_tls_data) segment->data = module->dlpi_tls_data, segment->bytes = bytes;
  return 1;
}

// With 0xFF, or with 0x7FFF at every even address.
void fill(unsigned char* memory, size_t bytes, bool positive) {
  if (bytes == 0) return;
  if (!positive) {
    std::memset(memory, 0xFF, bytes);
    return;
  }
  const unsigned char pair[] = {0xFF, 0x7F, 0xFF};
  std::memcpy(memory, pair + reinterpret_cast<uintptr_t>(memory) % 2, std::min<size_t>(bytes, 2));
  for (size_t done = 2; done < bytes; done *= 2)
    std::memcpy(memory + done, memory, std::min(done, bytes - done));
}

}  // namespace

SharedMemory::SharedMemory(size_t dynamic_bytes, const void* code) : dynamic_bytes_(dynamic_bytes) {
  memory_ = static_cast<unsigned char*>(std::malloc(dynamic_bytes + 2 * kGuard + 64));
  const auto start = reinterpret_cast<uintptr_t>(memory_) + kGuard;
  dynamic_ = reinterpret_cast<unsigned char*>((start + 31) / 32 * 32 + 16);
  std::memset(memory_, kGuardByte, dynamic_bytes + 2 * kGuard + 64);
  ASAN_POISON_MEMORY_REGION(dynamic_ - kGuard, kGuard);
  ASAN_POISON_MEMORY_REGION(dynamic_ + dynamic_bytes, kGuard);

  Segment segment{code, nullptr, 0};
  dl_iterate_phdr(find_segment, &segment);
  static_ = static_cast<unsigned char*>(segment.data);
  static_bytes_ = segment.bytes;
  kept_ = static_cast<unsigned char*>(std::malloc(static_bytes_ + 1));
  if (static_bytes_) std::memcpy(kept_, static_, static_bytes_);
}

SharedMemory::~SharedMemory() {
  if (static_bytes_) std::memcpy(static_, kept_, static_bytes_);
  std::free(kept_);
  ASAN_UNPOISON_MEMORY_REGION(dynamic_ - kGuard, dynamic_bytes_ + 2 * kGuard);
  std::free(memory_);
}

void SharedMemory::poison(bool positive) {
  fill(dynamic_, dynamic_bytes_, positive);
  fill(static_, static_bytes_, positive);
}

// Not instrumented: it reads memory that is poisoned for AddressSanitizer.
__attribute__((no_sanitize_address)) bool SharedMemory::guards_intact() const {
  const unsigned char* const end = dynamic_ + dynamic_bytes_;
  for (size_t i = 0; i < kGuard; ++i)
    if (dynamic_[-1 - static_cast<ptrdiff_t>(i)] != kGuardByte || end[i] != kGuardByte)
      return false;
  return true;
}

}  // namespace mlpkern::fiber
