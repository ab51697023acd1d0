// How a long call learns that it should end early: from a signal that has a handler in Python, or
// from a flag that another thread sets.
//
// Python runs handlers in the main thread alone, between two of its byte codes, so never while a
// kernel works there. The handlers are not touched. For the time of the call signal.set_wakeup_fd
// names a pipe of ours, and what comes in is passed on to the file descriptor named before.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace mlpkern {
namespace py = pybind11;

class Interruption {
 public:
  // flag: a buffer of one byte that is not 0 once the call should end; None: signals end it.
  // First runs the handlers of signals that came before; throws what they raise.
  explicit Interruption(const py::object& flag);
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;

  // Whether the call should end: the flag is set, or a signal came since the last question. Needs
  // no interpreter lock.
  bool asked();

  // Whether signals can ask.
  bool listens() const { return listens_; }

  // Whether nobody can: no flag, and not the main thread.
  bool deaf() const { return !flag_.buf && !listens_; }

 private:
  bool read_signals();
  void stop_listening();

  Py_buffer flag_ = {};
  bool listens_ = false;
  int before_ = -1;      // the file descriptor of set_wakeup_fd before
  std::string signals_;  // their numbers, to pass on
};

// Seconds between two questions.
constexpr double kPollSeconds = 0.1;

}  // namespace mlpkern
