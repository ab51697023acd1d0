// Reads ids, and finds those out of range before a kernel uses them as row numbers.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace mlpkern {

// The value at an offset in elements.
int64_t read_id(IndexType type, const void* data, int64_t offset);

// Flat position (row-major) of the first value outside [0, limit) of a (sizes[0], sizes[1],
// sizes[2]) array, or -1. Strides in elements.
int64_t first_out_of_range(IndexType type, const void* data, const int64_t (&sizes)[3],
                           const int64_t (&strides)[3], int64_t limit);

}  // namespace mlpkern
