#include "binding/cuda_library.h"

#include <dlfcn.h>

#include <atomic>
#include <stdexcept>

#include "binding/bad_id.h"

namespace mlpkern {
namespace {

constexpr int kMaxDevices = 64;

const cuda::Library* library = nullptr;
std::atomic<uint64_t> used_devices{0};  // a bit for each device that a kernel ran on

// (available, reason, detail), as mlpkern.Backend. The library at `path` stays loaded.
py::tuple load_cuda_library(const std::string& path) {
  if (!library) {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle)
      return py::make_tuple(false, "mlpkern/_cuda.so does not load: " + std::string(dlerror()), "");
    auto* entry =
        reinterpret_cast<decltype(&mlpkern_cuda_library)>(dlsym(handle, "mlpkern_cuda_library"));
    const cuda::Library* found = entry ? entry() : nullptr;
    if (!found || found->abi != cuda::kAbi) {
      dlclose(handle);
      return py::make_tuple(false, "mlpkern/_cuda.so is of another build than mlpkern/_C", "");
    }
    library = found;
  }
  char reason[512] = "", detail[512] = "";
  const bool available = library->status(reason, detail, sizeof reason);
  return py::make_tuple(available, std::string(reason), std::string(detail));
}

// IndexError for a bad id that a device has recorded since the last call.
void check_cuda_errors() {
  for (int device = 0; device < kMaxDevices; ++device) {
    if (!(used_devices.load() >> device & 1)) continue;
    cuda::BadId bad{};
    int error = 0;
    {
      py::gil_scoped_release release;
      error = cuda_library().take_bad_id(device, &bad);
    }
    if (error != 0) throw_cuda_error("check_errors", error);
    if (bad.op == cuda::BadIdOp::none) continue;
    const std::string position = position_text(bad.shape, bad.position);
    if (bad.op == cuda::BadIdOp::embedding_gather)
      throw_bad_id("embedding_gather", position, bad.value, bad.bound);
    throw_bad_target(position, bad.value, bad.bound, bad.ignored);
  }
}

}  // namespace

const cuda::Library& cuda_library() {
  if (!library) throw std::runtime_error("mlpkern/_cuda.so is not loaded");
  return *library;
}

void mark_used(const Place& place) {
  if (place.index < kMaxDevices) used_devices.fetch_or(uint64_t{1} << place.index);
}

void throw_cuda_error(const char* op, int error) {
  throw std::runtime_error(std::string(op) + ": CUDA error " + std::to_string(error) + ": " +
                           cuda_library().error_string(error));
}

void bind_cuda_library(py::module_& m) {
  m.def("load_cuda_library", load_cuda_library, py::arg("path"),
        "Loads mlpkern/_cuda.so; (available, reason, detail).");
  m.def("check_cuda_errors", check_cuda_errors,
        "IndexError for an id out of range that a GPU has read since the last call.");
}

}  // namespace mlpkern
