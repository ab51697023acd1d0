// For the tests of the shim itself: how a program ends that launches a known-bad kernel.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "testing.h"

namespace mlpkern::testing {

struct Ending {
  std::string said;  // to stderr
  int signal;        // that ended it, 0 for none
  int status;        // it returned otherwise
};

// Runs `body` in a child process, so that it may abort.
inline Ending run_apart(const std::function<void()>& body) {
  int ends[2];
  CHECK(pipe(ends) == 0, "no pipe");
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    body();
    std::fflush(nullptr);
    _exit(0);
  }
  close(ends[1]);
  Ending ending{};
  char part[4096];
  for (ssize_t got; (got = read(ends[0], part, sizeof part)) > 0;)
    ending.said.append(part, static_cast<size_t>(got));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  ending.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  ending.status = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  return ending;
}

// The shim ends the program and prints `message`.
#define CHECK_ABORTS(message, ...)                                                             \
  do {                                                                                         \
    const mlpkern::testing::Ending ending = mlpkern::testing::run_apart([&] { __VA_ARGS__; }); \
    CHECK(ending.signal == SIGABRT, "signal %d, status %d: %s", ending.signal, ending.status,  \
          ending.said.c_str());                                                                \
    CHECK(ending.said.find(message) != std::string::npos, "%s", ending.said.c_str());          \
  } while (0)

// The test harness reports a failure with `message` in it, and continues.
#define CHECK_REPORTS(message, ...)                                                            \
  do {                                                                                         \
    const mlpkern::testing::Ending ending = mlpkern::testing::run_apart([&] { __VA_ARGS__; }); \
    CHECK(ending.signal == 0 && ending.status == 0, "signal %d, status %d: %s", ending.signal, \
          ending.status, ending.said.c_str());                                                 \
    CHECK(ending.said.find(message) != std::string::npos, "%s", ending.said.c_str());          \
  } while (0)

// Nothing is printed.
#define CHECK_ACCEPTED(...)                                                                    \
  do {                                                                                         \
    const mlpkern::testing::Ending ending = mlpkern::testing::run_apart([&] { __VA_ARGS__; }); \
    CHECK(ending.signal == 0 && ending.status == 0 && ending.said.empty(),                     \
          "signal %d, status %d: %s", ending.signal, ending.status, ending.said.c_str());      \
  } while (0)

}  // namespace mlpkern::testing
