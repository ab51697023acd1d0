// cp.async: from its start to the wait of the thread that started it, the destination holds 0xFF.
// So both mistakes are seen: reading before the wait, and starting a copy into a buffer that
// others still read.
#pragma once

#include <vector>

#include "fiber/run/site.h"

namespace mlpkern::fiber {

struct AsyncCopy {
  void* to;
  const void* from;
  int bytes, valid;
};

struct AsyncCopies {
  std::vector<AsyncCopy> open;                 // since the last commit
  std::vector<std::vector<AsyncCopy>> groups;  // the oldest first
};

void async_copy(void* to, const void* from, int bytes, int valid, Site site);
void async_copy_commit();
void async_copy_wait(int pending, Site site);

}  // namespace mlpkern::fiber
