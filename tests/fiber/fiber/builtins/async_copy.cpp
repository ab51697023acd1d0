#include "fiber/builtins/async_copy.h"

#include <cstdint>
#include <cstring>

#include "fiber/run/mutation.h"
#include "fiber/run/scheduler.h"

namespace mlpkern::fiber {

void async_copy(void* to, const void* from, int bytes, int valid, Site site) {
  const auto addresses = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
  if (addresses % static_cast<unsigned>(bytes) != 0)
    refuse("%s:%d: cp.async of %d bytes from %p to %p, not both multiples of its size", site.file,
           site.line, bytes, from, to);
  if (valid < 0 || valid > bytes)
    refuse("%s:%d: cp.async of %d bytes, %d of them valid", site.file, site.line, bytes, valid);
  std::memset(to, 0xFF, static_cast<size_t>(bytes));
  copies_of_thread().open.push_back({to, from, bytes, valid});
}

void async_copy_commit() {
  AsyncCopies& copies = copies_of_thread();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}

void async_copy_wait(int pending, Site site) {
  if (leaves_out(site)) return;
  auto& groups = copies_of_thread().groups;
  size_t done = 0;
  for (; groups.size() - done > static_cast<size_t>(pending); ++done)
    for (const AsyncCopy& copy : groups[done]) {
      std::memset(copy.to, 0, static_cast<size_t>(copy.bytes));
      std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.valid));
    }
  groups.erase(groups.begin(), groups.begin() + static_cast<ptrdiff_t>(done));
}

}  // namespace mlpkern::fiber
