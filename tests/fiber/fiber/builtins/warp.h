// Exchanges within a warp: each named lane gives a value and gets those of the others. Any set of
// lanes may meet while the rest of the warp runs on; nothing is in lockstep.
#pragma once

#include <cstddef>
#include <cstring>
#include <type_traits>

#include "fiber/run/site.h"

namespace mlpkern::fiber {

struct alignas(16) Gift {
  unsigned char bytes[32];

  template <class T>
  T as() const {
    T value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
};

// Waits for all lanes of `mask`, which must call the same `what` with the same mask at the same
// line. Returns the values of the 32 lanes, valid until this lane's next meeting.
const Gift* meet(unsigned mask, const void* mine, size_t bytes, const char* what, Site site);

template <class T>
const Gift* meet(unsigned mask, const T& mine, const char* what, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(Gift));
  return meet(mask, &mine, sizeof mine, what, site);
}

// To be called before a block of this many threads.
void forget_meetings(size_t threads);

}  // namespace mlpkern::fiber
