#include "binding/tensor/exchange.h"

namespace mlpkern {

const DLPackExchangeAPI* exchange = nullptr;
PyTypeObject* tensor_type = nullptr;

void load_exchange_api() {
  py::object type = py::module_::import("torch").attr("Tensor");
  const char* needs = "mlpkern needs torch >= 2.11 (torch.Tensor.__dlpack_c_exchange_api__)";
  if (!py::hasattr(type, "__dlpack_c_exchange_api__")) throw py::import_error(needs);
  py::object capsule = type.attr("__dlpack_c_exchange_api__");
  auto* api = static_cast<const DLPackExchangeAPI*>(
      PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!api) throw py::error_already_set();
  while (api && api->version.major != 1) api = api->prev_api;
  if (!api || !api->dltensor_from_py_object_no_sync) throw py::import_error(needs);
  exchange = api;
  tensor_type = reinterpret_cast<PyTypeObject*>(type.release().ptr());  // kept for good
}

void* current_stream(const Place& place) {
  void* stream = nullptr;
  if (exchange->current_work_stream(place.type, place.index, &stream) != 0)
    throw py::error_already_set();
  return stream;
}

}  // namespace mlpkern
