// Ends a long call early: when a signal with a handler in Python arrives, or when another thread
// sets a flag.
//
// Python runs handlers only in the main thread and only between two byte codes, so never during a
// kernel. Interruption leaves the handlers alone: during the call signal.set_wakeup_fd names a pipe
// of ours, and the signal numbers that arrive are then passed on to the previous file descriptor.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace mlpkern {
namespace py = pybind11;

class Interruption {
 public:
  // flag: a buffer of one byte that is set to nonzero to end the call; None: signals end it.
  // First runs the handlers of earlier signals; throws what they raise.
  explicit Interruption(const py::object& flag);
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;

  // Whether the call should end: the flag is set, or a signal has arrived since the last poll.
  // Needs no interpreter lock.
  bool asked();

  // Whether signals can end the call.
  bool listens() const { return listens_; }

  // Whether nothing can end the call: no flag, and not the main thread.
  bool deaf() const { return !flag_.buf && !listens_; }

 private:
  bool read_signals();
  void stop_listening();

  Py_buffer flag_ = {};
  bool listens_ = false;
  int before_ = -1;      // the previous file descriptor of set_wakeup_fd
  std::string signals_;  // their numbers, to pass on
};

// Seconds between two polls.
constexpr double kPollSeconds = 0.1;

}  // namespace mlpkern
