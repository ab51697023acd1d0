// Where in the source a barrier or an exchange stands. As a default argument `Site site =
// Site::here()` names the line of the caller, so intrinsics can be plain functions.
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
