// The test harness of the launchers: registered cases, checks that print the numbers, arrays
// between guard bytes, and a runner over every instruction set and several thread counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels.h"

namespace mlpkern::testing {

// --- Cases and checks ----------------------------------------------------------------------------
struct Case {
  Case(const char* name, void (*body)());
};

// Counts a failure and prints where, the label of the running case and the message.
void fail(const char* file, int line, const std::string& message);

// Sets the label of the following checks ("avx2, 3 threads, N=7 ..."), printed with each failure.
void set_context(const std::string& context);

// Whether to run a reduced list of cases, one of each kind, for the mutation test
// (tests/cuda/mutation/mutate.py), which runs a program hundreds of times, and for sanitizers. Set
// by MLPKERN_TEST_QUICK in the environment.
bool quick();

// With MLPKERN_TEST_QUICK=n, n > 1, for emulators, also the CPU kernels run a sample: of the cases
// that are not large, each test case runs the first and one in n.
bool sampled();
bool left_out(int64_t multiply_adds);  // whether to leave out the next case, of about this size

// The instruction sets of all cases ("avx2,baseline"), for the last line of the program.
void set_place(const char* (*name)());

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

#define TEST_CASE(name)                                               \
  static void name();                                                 \
  static const mlpkern::testing::Case registered_##name(#name, name); \
  static void name()

#define CHECK(condition, ...)                                                    \
  do {                                                                           \
    if (!(condition))                                                            \
      mlpkern::testing::fail(                                                    \
          __FILE__, __LINE__,                                                    \
          std::string(#condition ": ") + mlpkern::testing::format(__VA_ARGS__)); \
  } while (0)

// --- Arrays --------------------------------------------------------------------------------------
size_t item_size(DType dtype);
size_t item_size(IndexType type);
const char* name_of(DType dtype);
const char* name_of(IndexType type);
DType accumulator_of(DType dtype);
double epsilon_of(DType dtype);  // distance from 1 to the next value

// Bytes between two guard zones; filled with 0xFF, which is NaN in every floating-point type. Under
// AddressSanitizer the guards are poisoned, so that a read there is reported as well.
class Buffer {
 public:
  // `offset` bytes past a multiple of 64: kernels may assume only the alignment of the item.
  explicit Buffer(size_t bytes, size_t offset = 0);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() { return data_; }
  const void* data() const { return data_; }
  size_t size() const { return bytes_; }
  void poison();         // fill with 0xFF again
  bool guards_intact();  // nothing was written outside

 private:
  std::vector<unsigned char> memory_;
  unsigned char* data_;
  size_t bytes_;
};

// An array of floating-point values seen as doubles.
class Values {
 public:
  Values(DType dtype, int64_t count);
  double get(int64_t i) const;
  void set(int64_t i, double value);  // rounds to dtype, to nearest even
  std::vector<double> doubles() const;
  void randomize(double scale);  // uniform in (-scale, scale), never zero
  void* data() { return buffer.data(); }

  DType dtype;
  int64_t count;
  Buffer buffer;
};

// An array of ids.
class Ids {
 public:
  Ids(IndexType type, int64_t count);
  int64_t get(int64_t i) const;
  void set(int64_t i, int64_t value);
  void randomize(int64_t bound);  // uniform in [0, bound)
  void* data() { return buffer.data(); }

  IndexType type;
  int64_t count;
  Buffer buffer;
};

// A uniform number in [0, 1) from one fixed sequence per process.
double uniform();

// --- Running a kernel ----------------------------------------------------------------------------
// Calls `kernel` with a fresh workspace of exactly the size it asks for; checks the guards.
template <class Args>
int64_t launch(int64_t (*kernel)(const Args&), size_t (*workspace)(const Args&), Args args) {
  Buffer scratch(workspace(args));
  args.workspace = scratch.data();
  const int64_t position = kernel(args);
  CHECK(scratch.guards_intact(), "wrote outside its workspace of %zu bytes", scratch.size());
  return position;
}

// Runs `run` for every instruction set and several thread counts. Before each run the outputs are
// filled with NaN; after it their guards must be intact. `check` compares with the reference
// after the first thread count; after the others the outputs must have the same bits.
void run_everywhere(const std::string& label, const std::vector<Buffer*>& outputs,
                    const std::function<int64_t()>& run, const std::function<void()>& check);

// Runs `body` once for every instruction set that this machine has.
void for_each_isa(const std::string& label, const std::function<void()>& body);

void set_threads(int count);

}  // namespace mlpkern::testing
