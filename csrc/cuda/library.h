// The contract between mlpkern/_C and mlpkern/_cuda.so: one table of function pointers. It
// needs no header of CUDA or torch, so _C is the same with and without nvcc.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels_cuda.h"

namespace mlpkern::cuda {

// A launcher enqueues its kernels on `stream` (a cudaStream_t) of the current device. It allocates
// nothing, does not synchronize and returns a cudaError_t, 0 for success. A returned error is
// cleared from the CUDA runtime.
#define MLPKERN_DECLARE_CUDA_KERNEL(name, Args) \
  int name(const Args& args, void* stream);     \
  size_t name##_workspace(const Args& args);
MLPKERN_CUDA_KERNELS(MLPKERN_DECLARE_CUDA_KERNEL)

// Which kernel runs the call on the current device, by sizes and options; pointers are not read.
// The launchers return cudaErrorInvalidValue where there is none.
ModelPath train_steps_path(const TrainSteps& args);
ModelPath evaluate_path(const Evaluate& args);

enum class BadIdOp : int32_t { none = 0, embedding_gather = 1, cross_entropy = 2 };

// An id or target out of range that a device has read; `position` is flat.
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
  // Whether the kernels can run. Writes one line about the GPUs to `detail`, or the reason why they
  // cannot to `reason`, each of at most `size` bytes. Never throws, leaves no CUDA error behind.
  bool (*status)(char* reason, char* detail, size_t size);
  const char* (*error_string)(int error);
  // Synchronizes the device and moves its recorded bad id to *bad; op none if there is none.
  // Returns a cudaError_t.
  int (*take_bad_id)(int device, BadId* bad);
};

// Changes with the size of every struct that crosses the boundary; to be changed by hand when the
// meaning of one changes.
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
