// Long launchers in pieces, between which they ask the one who called whether to go on.
//
// What to ask is a setting of the calling thread, as its limit of threads is (parallel.h).
#pragma once

#include <chrono>
#include <cstdint>

namespace mlpkern::cpu {

// Asked in the calling thread about every `seconds`, with what is done so far: the steps that all
// models of a train_steps have taken, the blocks of an evaluate. After false the launcher ends
// there; the outputs of an evaluate are then unspecified.
struct Poll {
  bool (*go_on)(void* context, int64_t done) = nullptr;  // null: not asked
  void* context = nullptr;
  double seconds = 0;
};

// While it lives, launchers of this thread ask so.
class Asking {
 public:
  explicit Asking(const Poll& poll);
  ~Asking();
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;

 private:
  const Poll before_;
};

// Cuts a loop into pieces that take about as long as the time between two questions.
class Pieces {
 public:
  // For `count` iterations of at most about so many multiply-adds each.
  Pieces(int64_t count, double multiply_adds);

  // Where the piece in work ends.
  int64_t end() const { return end_; }

  // Whether to go on after `done` iterations; asks at the end of a piece.
  bool go_on(int64_t done);

 private:
  using Clock = std::chrono::steady_clock;

  const Poll poll_;
  const int64_t count_;
  int64_t begin_ = 0, end_;
  Clock::time_point began_;
};

}  // namespace mlpkern::cpu
