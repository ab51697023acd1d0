// Runs a launcher of csrc/cuda through the fibers of tests/fiber: in every order of threads and
// blocks, on devices of several sizes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fiber/run/grid.h"
#include "testing.h"

namespace mlpkern::testing {

// Calls `kernel` with a fresh workspace of exactly the size it asks for; checks its guards.
template <class Args>
int launch(int (*kernel)(const Args&, void*), size_t (*workspace)(const Args&), Args args) {
  Buffer scratch(workspace(args));
  args.workspace = scratch.data();
  const int error = kernel(args, nullptr);
  CHECK(scratch.guards_intact(), "wrote outside its workspace of %zu bytes", scratch.size());
  return error;
}

// Runs `run`, which returns a cudaError_t, in every order. Before each run the outputs are filled
// with NaN; after it their guards must be intact. `check` compares with the reference after the
// first; after the others the outputs must have the same bits.
void run_in_every_order(const std::string& label, const std::vector<Buffer*>& outputs,
                        const std::function<int()>& run, const std::function<void()>& check);

}  // namespace mlpkern::testing
