// What the binding files share: one function per file that adds its part to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace mlpkern {

void bind_train_steps(pybind11::module_& m);  // train_steps and evaluate

}  // namespace mlpkern
