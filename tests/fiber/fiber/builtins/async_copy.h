// cp.async: from its start until its thread waits for it, the destination holds 0xFF. This exposes
// both mistakes: reading before the wait, and starting a copy into a buffer that other threads
// still read.
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
