// When to work alone: a thread that holds a piece of a loop but has no core (another program has
// it) keeps its caller waiting until the system gives it one.
#pragma once

#include <chrono>

namespace mlpkern::cpu {

using Clock = std::chrono::steady_clock;

static inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class Stragglers {
 public:
  // The caller waited so long for the others after so long a work of its own.
  void waited(double seconds, double own_work) {
    if (seconds < kStraggling || seconds < kUneven * own_work) return;
    alone_ = true;
    until_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                std::chrono::duration<double>(kAlone * seconds));
  }

  // Whether the next loop is better done alone.
  bool expected() {
    if (alone_ && Clock::now() >= until_) alone_ = false;
    return alone_;
  }

 private:
  // A system takes a core away for milliseconds. Pieces of a loop are uneven, too.
  static constexpr double kStraggling = 500e-6, kUneven = 2;
  static constexpr double kAlone = 8;  // times the wait, so that waiting costs a tenth at most
  bool alone_ = false;
  Clock::time_point until_;
};

}  // namespace mlpkern::cpu
