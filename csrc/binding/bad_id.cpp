#include "binding/bad_id.h"

#include <algorithm>

#include "binding/id_range.h"

namespace mlpkern {

IdShape shape_of(const Tensor& t) {
  IdShape shape = {};
  shape.ndim = static_cast<int32_t>(std::min<int64_t>(t.ndim(), kShapeAxes));
  const int64_t folded = t.ndim() - shape.ndim;
  for (int64_t axis = 0; axis < shape.ndim; ++axis) shape.size[axis] = t.size(axis + folded);
  for (int64_t axis = 0; axis < folded; ++axis) shape.size[0] *= t.size(axis);
  return shape;
}

std::string position_text(const IdShape& shape, int64_t flat) {
  std::string text;
  for (int32_t axis = shape.ndim; axis-- > 0; flat /= shape.size[axis])
    text = std::to_string(flat % shape.size[axis]) + (text.empty() ? "" : ", ") + text;
  return text.empty() ? text : "[" + text + "]";
}

int64_t id_at(const Tensor& t, int64_t flat) {
  int64_t offset = 0;
  for (int64_t axis = t.ndim(); axis-- > 0; flat /= t.size(axis))
    offset += flat % t.size(axis) * t.stride(axis);
  return read_id(t.index_type(), t.data(), offset);
}

void throw_out_of_range(const char* op, const char* name, const std::string& position,
                        int64_t value, const char* noun, int64_t limit) {
  throw py::index_error(std::string(op) + ": " + name + position + " is " + std::to_string(value) +
                        ", expected 0 <= " + noun + " < " + std::to_string(limit));
}

void throw_bad_id(const char* op, const std::string& position, int64_t value, int64_t V) {
  throw_out_of_range(op, "input", position, value, "id", V);
}

void throw_bad_id(const char* op, const Tensor& input, int64_t flat, int64_t V) {
  throw_bad_id(op, position_text(shape_of(input), flat), id_at(input, flat), V);
}

void throw_bad_target(const std::string& position, int64_t value, int64_t C, int64_t ignored) {
  throw py::index_error("cross_entropy: target" + position + " is " + std::to_string(value) +
                        ", expected 0 <= target < " + std::to_string(C) + " (or ignore_index " +
                        std::to_string(ignored) + ")");
}

}  // namespace mlpkern
