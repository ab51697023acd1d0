// torch's DLPack exchange API, found once at import.
#pragma once

#include <pybind11/pybind11.h>

#include "binding/tensor/dlpack.h"
#include "binding/tensor/place.h"

namespace mlpkern {

namespace py = pybind11;

// Throws ImportError when torch is too old.
void load_exchange_api();

// The API and the type torch.Tensor, valid after load_exchange_api().
extern const DLPackExchangeAPI* exchange;
extern PyTypeObject* tensor_type;

// torch's current stream of a GPU, a cudaStream_t.
void* current_stream(const Place& place);

}  // namespace mlpkern
