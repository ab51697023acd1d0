#include "binding/model/interruption.h"

#include <fcntl.h>
#include <unistd.h>

namespace mlpkern {
namespace {

constexpr int kNotMainThread = -2;

// signal.set_wakeup_fd(fd, warn_on_full_buffer=False): returns the previous one, or kNotMainThread.
int set_wakeup_fd(int fd) {
  static PyObject* const function =
      py::object(py::module_::import("_signal").attr("set_wakeup_fd")).release().ptr();
  static PyObject* const quiet = py::dict(py::arg("warn_on_full_buffer") = false).release().ptr();
  const py::tuple arguments = py::make_tuple(fd);
  const auto before =
      py::reinterpret_steal<py::object>(PyObject_Call(function, arguments.ptr(), quiet));
  if (before) return before.cast<int>();
  PyErr_Clear();
  return kNotMainThread;
}

// The pipe of this process, used by its main thread; after a fork the child opens its own.
struct SignalPipe {
  pid_t owner = 0;
  int read_end = -1, write_end = -1;

  // False when no file descriptor is left: signals are then handled at the end of the call.
  bool open() {
    if (owner == getpid()) return true;
    int ends[2];
    if (pipe(ends)) return false;
    for (int end : ends) {
      fcntl(end, F_SETFL, O_NONBLOCK);
      fcntl(end, F_SETFD, FD_CLOEXEC);
    }
    owner = getpid();
    read_end = ends[0], write_end = ends[1];
    return true;
  }
};

SignalPipe signal_pipe;

}  // namespace

Interruption::Interruption(const py::object& flag) {
  if (!flag.is_none()) {
    if (PyObject_GetBuffer(flag.ptr(), &flag_, PyBUF_SIMPLE)) throw py::error_already_set();
    return;
  }
  if (!signal_pipe.open()) return;
  before_ = set_wakeup_fd(signal_pipe.write_end);
  listens_ = before_ != kNotMainThread;
  if (listens_ && PyErr_CheckSignals()) {
    const py::error_already_set error;
    stop_listening();
    throw error;
  }
}

Interruption::~Interruption() {
  if (flag_.buf) PyBuffer_Release(&flag_);
  if (listens_) stop_listening();
}

bool Interruption::asked() {
  if (flag_.buf) return __atomic_load_n(static_cast<const char*>(flag_.buf), __ATOMIC_RELAXED);
  return listens_ && read_signals();
}

bool Interruption::read_signals() {
  char numbers[64];
  bool any = false;
  for (ssize_t count; (count = read(signal_pipe.read_end, numbers, sizeof numbers)) > 0; any = true)
    if (before_ >= 0) signals_.append(numbers, static_cast<size_t>(count));
  return any;
}

void Interruption::stop_listening() {
  const int named = set_wakeup_fd(before_);
  read_signals();
  if (named != signal_pipe.write_end) {  // a handler has set another one: keep it
    set_wakeup_fd(named);
  }
  // A full pipe loses numbers, as when Python itself writes to it.
  if (!signals_.empty() && write(before_, signals_.data(), signals_.size()) < 0) return;
}

}  // namespace mlpkern
