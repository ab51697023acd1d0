// The pybind11 module mlpkern._C. The functions of an op are in <op>_binding.cpp: each checks its
// arguments, allocates outputs and scratch, and calls one launcher; no arithmetic. The checks only
// keep a direct call from reading or writing outside its arrays; those for users are in
// mlpkern/ops.
#include "binding/bindings.h"
#include "cpu/dispatch.h"

#include <pybind11/pybind11.h>

#include "cpu/threads/parallel.h"

namespace mlpkern {

namespace {

py::dict cache_info() {
  const memory::Info info = memory::info();
  py::dict result;
  result["kept_bytes"] = info.kept_bytes;
  result["limit_bytes"] = info.limit_bytes;
  result["hits"] = info.hits;
  result["misses"] = info.misses;
  return result;
}

// A new tensor by torch.empty, as on a GPU, for a tensor anywhere: for tests without a GPU.
py::object torch_output_like(py::handle tensor) {
  Place place;
  const Tensor like(tensor, {"torch_output_like", "tensor"}, place);
  void* data;
  return new_torch_tensor(place, like.dtype(), like.shape(), like.ndim(), &data);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of mlpkern. Use them through mlpkern.functional.";
  load_exchange_api();
  load_torch_empty();

  bind_embedding_gather(m);
  bind_linear_tanh(m);
  bind_embedding_linear_tanh(m);
  bind_cross_entropy(m);
  bind_train_steps(m);
  bind_evaluate(m);
  bind_gpu_kernels(m);
  bind_cuda_library(m);

  m.def("isa", cpu::isa, "Instruction set in use: avx512, avx2, baseline; neon; or none.");
  m.def("isa_error", cpu::isa_error, "Why isa() is none, why MLPKERN_ISA cannot be used, or None.");
  m.def("isas_available", cpu::isas_available,
        "Instruction sets of this library that this machine can run.");
  m.def("num_threads", cpu::max_threads, "Threads a parallel loop started here would use.");
  m.def("limit_threads", cpu::limit_threads, py::arg("count"),
        "Bounds the threads of loops started by this thread, 0 for no bound; returns the previous "
        "one.");
  m.def("parallel_backend", cpu::parallel_source,
        "Who says how many threads there are: torch, openmp or system.");
  m.def("fma_peak", cpu::fma_peak, py::arg("seconds"), py::call_guard<py::gil_scoped_release>(),
        "Flops per second of one core in fused multiply-adds of float32 on registers alone.");
  m.def(
      "thread_latency",
      [] {
        const cpu::Latency latency = cpu::thread_latency();
        return py::make_tuple(latency.awake, latency.asleep);
      },
      "Seconds until another thread begins its part of a loop: of one awake, of one asleep.");
  m.def("torch_output_like", torch_output_like, py::arg("tensor"),
        "A tensor of this shape, dtype and device, made as outputs on a GPU are.");
  m.def("empty_cache", memory::empty, "Frees the memory kept for reuse.");
  m.def("cache_info", cache_info, "Bytes kept for reuse, their limit, hits and misses.");
  m.def("set_cache_limit", memory::set_limit, py::arg("bytes"),
        "Sets the limit of bytes kept for reuse; 0 keeps none.");
}

}  // namespace mlpkern
