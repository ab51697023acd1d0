// The IndexError of an id or target out of range: which value, where, and what is expected.
#pragma once

#include <string>

#include "binding/tensor/tensor.h"

namespace mlpkern {

// The shape of a tensor of ids; axes beyond those of an IdShape are multiplied into the first.
IdShape shape_of(const Tensor& t);

// A flat position in a tensor of this shape as "[3, 1]".
std::string position_text(const IdShape& shape, int64_t flat);

// The id at a flat position of the tensor.
int64_t id_at(const Tensor& t, int64_t flat);

// "<op>: <name>[3, 1] is 27, expected 0 <= <noun> < 27".
[[noreturn]] void throw_out_of_range(const char* op, const char* name, const std::string& position,
                                     int64_t value, const char* noun, int64_t limit);

// "<op>: input[3, 1] is 27, expected 0 <= id < 27".
[[noreturn]] void throw_bad_id(const char* op, const std::string& position, int64_t value,
                               int64_t V);
[[noreturn]] void throw_bad_id(const char* op, const Tensor& input, int64_t flat, int64_t V);

// "cross_entropy: target[3] is 27, expected 0 <= target < 27 (or ignore_index -100)".
[[noreturn]] void throw_bad_target(const std::string& position, int64_t value, int64_t C,
                                   int64_t ignored);

}  // namespace mlpkern
