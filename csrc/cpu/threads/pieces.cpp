#include "cpu/threads/pieces.h"

namespace mlpkern::cpu {
namespace {

thread_local Poll current;

constexpr double kSlowest = 4e9;    // multiply-adds a second, loads and stores included
constexpr double kOverhead = 1000;  // of one iteration, in multiply-adds
constexpr double kGrowth = 8;       // of a piece over the previous one, at most

}  // namespace

Asking::Asking(const Poll& poll) : before_(current) { current = poll; }
Asking::~Asking() { current = before_; }

Pieces::Pieces(int64_t count, double multiply_adds) : poll_(current), count_(count), end_(count) {
  if (!poll_.go_on) return;
  // The first piece is far shorter than the time between two polls, even on a slow machine; a call
  // that fits into it never reads the clock.
  const double first = poll_.seconds * kSlowest / (multiply_adds + kOverhead);
  if (first >= static_cast<double>(count)) return;
  end_ = first < 1 ? 1 : static_cast<int64_t>(first);
  began_ = Clock::now();
}

bool Pieces::go_on(int64_t done) {
  if (done < end_ || done >= count_) return true;
  if (!poll_.go_on(poll_.context, done)) return false;
  const Clock::time_point now = Clock::now();
  const double elapsed = std::chrono::duration<double>(now - began_).count();
  const auto size = static_cast<double>(done - begin_), left = static_cast<double>(count_ - done);
  const double wanted = size * poll_.seconds, most = kGrowth * size;  // wanted: times the pace
  double next = elapsed * most > wanted ? wanted / elapsed : most;
  next = next < 1 ? 1 : next < left ? next : left;
  begin_ = done;
  end_ = done + static_cast<int64_t>(next);
  began_ = now;
  return true;
}

}  // namespace mlpkern::cpu
