// The contract between mlpkern/_C and mlpkern/_cuda.so: one table of function pointers. Neither
// CUDA's nor torch's headers are needed on this side, so _C is the same with and without nvcc.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace mlpkern::cuda {

// A launcher enqueues its kernels on `stream` (a cudaStream_t) of the current device, allocates
// nothing, waits for nothing and returns a cudaError_t, 0 if all is well. An error that is returned
// is not left in the CUDA runtime as well.
#define MLPKERN_DECLARE_CUDA_KERNEL(name, Args) \
  int name(const Args& args, void* stream);     \
  size_t name##_workspace(const Args& args);
MLPKERN_CUDA_KERNELS(MLPKERN_DECLARE_CUDA_KERNEL)

// Which kernel would serve the call on the current device: by sizes and options, pointers are not
// read. The launchers return cudaErrorInvalidValue where there is none.
ModelPath train_steps_path(const TrainSteps& args);
ModelPath evaluate_path(const Evaluate& args);

enum class BadIdOp : int32_t { none = 0, embedding_gather = 1, cross_entropy = 2 };

// An id or target out of range that a device met. `position` counts the elements of its tensor.
struct BadId {
  BadIdOp op;
  IdShape shape;
  int64_t position, value, bound, ignored;
};

struct Library {
  uint64_t abi;  // kAbi of the headers it was compiled with

#define MLPKERN_CUDA_POINTERS(name, Args)                  \
  int (*name)(const Args& args, int device, void* stream); \
  size_t (*name##_workspace)(const Args& args, int device);
  MLPKERN_CUDA_KERNELS(MLPKERN_CUDA_POINTERS)

  ModelPath (*train_steps_path)(const TrainSteps& args, int device);
  ModelPath (*evaluate_path)(const Evaluate& args, int device);
  // Whether the kernels can run: writes one line about the cards to `detail`, or why not to
  // `reason`, each of at most `size` bytes. Never throws, never leaves a CUDA error behind.
  bool (*status)(char* reason, char* detail, size_t size);
  const char* (*error_string)(int error);
  // Waits for the work of the device and moves what it recorded to *bad (op none: nothing). Returns
  // a cudaError_t.
  int (*take_bad_id)(int device, BadId* bad);
};

// Changes with the size of any struct that crosses the boundary, and by hand with their meaning.
constexpr uint64_t kAbi = [] {
  uint64_t hash = 2;
#define MLPKERN_HASH(name, Args) hash = hash * 1000003 + sizeof(Args);
  MLPKERN_CUDA_KERNELS(MLPKERN_HASH)
#undef MLPKERN_HASH
  return hash * 1000003 + sizeof(Library);
}();

}  // namespace mlpkern::cuda

// The only symbol that _cuda.so exports.
extern "C" const mlpkern::cuda::Library* mlpkern_cuda_library();
