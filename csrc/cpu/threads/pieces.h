// Long launchers run in pieces and poll between them whether to go on.
//
// What is polled is a setting of the calling thread, like its limit of threads (parallel.h).
#pragma once

#include <chrono>
#include <cstdint>

namespace mlpkern::cpu {

// Called in the calling thread about every `seconds` with the amount of work done: the steps that
// all models of train_steps have taken, or the blocks of evaluate. If it returns false, the
// launcher ends there; the outputs of evaluate are then unspecified.
struct Poll {
  bool (*go_on)(void* context, int64_t done) = nullptr;  // null: never called
  void* context = nullptr;
  double seconds = 0;
};

// As long as an object lives, the launchers of this thread poll it.
class Asking {
 public:
  explicit Asking(const Poll& poll);
  ~Asking();
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;

 private:
  const Poll before_;
};

// Cuts a loop into pieces that take about as long as the time between two polls.
class Pieces {
 public:
  // For `count` iterations of at most about `multiply_adds` each.
  Pieces(int64_t count, double multiply_adds);

  // Where the current piece ends.
  int64_t end() const { return end_; }

  // Whether to go on after `done` iterations; polls at the end of a piece.
  bool go_on(int64_t done);

 private:
  using Clock = std::chrono::steady_clock;

  const Poll poll_;
  const int64_t count_;
  int64_t begin_ = 0, end_;
  Clock::time_point began_;
};

}  // namespace mlpkern::cpu
