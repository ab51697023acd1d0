// The source location of a barrier or an exchange. As a default argument `Site site = Site::here()`
// is the line of the caller, so intrinsics can be plain functions.
#pragma once

#include <cstring>

namespace mlpkern::fiber {

struct Site {
  const char* file;
  int line;

  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

inline bool operator==(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}
inline bool operator!=(Site a, Site b) { return !(a == b); }

}  // namespace mlpkern::fiber
