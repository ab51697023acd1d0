"""What the tests of the GPU's benchmark share: a stand-in for the card, and its limits."""

from __future__ import annotations

from dataclasses import replace

from support.bench.tiny import SETTINGS

from bench import runner, suites
from bench.core.case import Case
from bench.cuda import providers as cuda_providers
from bench.cuda.limits import CudaLimits
from bench.cuda.providers import GRAPH, cuda_op_contest
from bench.gpu.rehearsal.stand_in import StandIn as FakeGpu
from bench.gpu.rehearsal.stand_in import StandInEvent as FakeEvent
from bench.ops import cross_entropy

__all__ = ["CASE", "CUDA_SETTINGS", "FAST", "FakeEvent", "FakeGpu", "fake_gpu", "suite_of"]

FAST = CudaLimits(
    {"L2": 1e11, "DRAM": 1e10},
    {"L2": 1 << 20, "DRAM": 1 << 30},
    {"float32": 1e11, "tf32": 2e11, "bfloat16": 4e11, "float16": 4e11},
    4e-6,
    2e-6,
    {"1": 5e-6, "10": 1e-5, "40": 3e-5},
)
CUDA_SETTINGS = replace(SETTINGS, device="cuda")
CASE = Case("cross_entropy", "8x5", "float32", {"N": 8, "V": 5}, rotate=True)


def fake_gpu(monkeypatch):
    """A fake GPU whose backends are plain torch."""
    real = cuda_providers.with_cuda_backend
    fake = lambda name, dtype: real("reference", dtype)  # noqa: E731
    monkeypatch.setattr(cuda_providers, "with_cuda_backend", fake)
    monkeypatch.setattr(runner, "_why_unavailable", lambda provider: "")
    return FakeGpu()


def suite_of(gpu, fused=None, case=CASE):
    table = replace(cross_entropy.TABLE, cuda_cases=(case,), ours=fused)

    def contest(case, cost, settings):
        return cuda_op_contest(table, case, cost, settings, gpu)

    names = {"ours": "cuda", "ours_graph": "cuda" + GRAPH, "baseline": "eager"}
    return suites.Suite("cross_entropy", (case,), table.cost, contest, **names)
