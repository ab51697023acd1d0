// The attributes of a Python object by name.
#pragma once

#include <string>
#include <vector>

#include "binding/tensor/tensor.h"

namespace mlpkern {

// What was read lives as long as this. An attribute that is missing is Python's AttributeError; one
// of another type a TypeError that names the op and the attribute.
class Record {
 public:
  Record(const char* op, py::handle object) : op_(op), object_(object) {}

  py::handle operator[](const char* name) {
    read_.push_back(object_.attr(name));
    return read_.back();
  }

  // A list or tuple; none for None.
  py::sequence list(const char* name) {
    const py::handle value = (*this)[name];
    if (value.is_none()) return py::tuple();
    if (!py::isinstance<py::list>(value) && !py::isinstance<py::tuple>(value))
      refuse(name, "a list", value);
    return py::reinterpret_borrow<py::sequence>(value);
  }

  template <class T>
  T number(const char* name) {
    const py::object value = object_.attr(name);
    try {
      return value.cast<T>();
    } catch (const py::cast_error&) {
      refuse(name, "a number", value);
    }
  }

 private:
  [[noreturn]] void refuse(const char* name, const char* expected, py::handle value) const {
    throw py::type_error(std::string(op_) + ": arguments." + name + " must be " + expected +
                         ", got " + Py_TYPE(value.ptr())->tp_name);
  }

  const char* op_;
  py::handle object_;
  std::vector<py::object> read_;
};

}  // namespace mlpkern
