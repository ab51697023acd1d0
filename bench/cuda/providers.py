"""The providers of an op on a GPU: stock eager, compiled and as CUDA graphs, and our backends.

A provider named "…, CUDA graph" is one whose forward and backward were captured and are replayed.
Every call of a case with `rotate` takes the next of several copies of the inputs, which together
exceed the L2 cache twice; a graph is captured for each copy. All providers share the copies.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Case, Cost, OpTable, Settings, Unavailable, forward_backward, itemsize
from bench.core.device import Device, Graph
from bench.core.providers import (
    MAX_AUTOTUNE,
    MLPKERN,
    STOCK,
    STOCK_GRAPH,
    Contest,
    Function,
    Prepared,
    Provider,
    Switch,
    compiled,
)

GRAPH = ", CUDA graph"
OURS = "cuda"
BACKENDS = (OURS, "triton", "reference")
CAPTURED = (OURS, "triton")  # the reference is not meant to be fast
MAX_COPIES = 32


@contextlib.contextmanager
def with_precision(dtype: str) -> Iterator[None]:
    """float32 products, stock's and ours, use TF32 for the dtype "tf32", full float32 otherwise."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def with_cuda_backend(name: str, dtype: str) -> Iterator[None]:
    import mlpkern

    with with_precision(dtype), mlpkern.use_backend(name):
        yield


def stock_switch(dtype: str) -> Switch:
    return lambda: with_precision(dtype)


def our_switch(backend: str, dtype: str) -> Switch:
    return lambda: with_cuda_backend(backend, dtype)


def cuda_op_contest(
    table: OpTable, case: Case, cost: Cost, settings: Settings, gpu: Device
) -> Contest:
    """The provider table of an op on a GPU, in the order in which rows are printed."""
    _need_memory(case, cost, gpu)
    problem = table.problem(case, gpu.device)
    copies = [problem]
    if case.rotate:
        count = -(-2 * gpu.l2_bytes // problem.bytes)
        copies += [problem.leaves(copy=True) for _ in range(min(count, MAX_COPIES) - 1)]
    rows: list[Provider] = []

    def add(
        name: str, kinds: tuple[str, str], function: Function, switch: Switch, backend: str = ""
    ) -> None:
        """A row for the calls and one for their replays."""

        def make() -> Prepared:
            calls = [forward_backward(function, copy.leaves()) for copy in copies]
            return Prepared(in_turns(calls), calls[0])

        def make_graph() -> Prepared:
            calls = [forward_backward(function, copy.leaves()) for copy in copies]
            graphs = [gpu.capture(call) for call in calls]
            return Prepared(in_turns([graph.replay for graph in graphs]), replayed(graphs[0]))

        rows.append(Provider(name, kinds[0], 1, make, switch, backend))
        if not backend or backend in CAPTURED:
            rows.append(Provider(name + GRAPH, kinds[1], 1, make_graph, switch, backend))

    for name, function in stock_functions(table.stock, settings).items():
        add(name, (STOCK, STOCK_GRAPH), function, stock_switch(case.dtype))
    for backend in BACKENDS:
        switch = our_switch(backend, case.dtype)
        add(backend, (MLPKERN, MLPKERN), table.fused, switch, backend)
    with with_precision(case.dtype):
        return Contest(rows, Yardstick.of(table, problem), gpu)


def stock_functions(function: Function, settings: Settings) -> dict[str, Function]:
    """Plain torch as it comes, and compiled. A row and its graph share what was compiled."""
    found = {"eager": function}
    if settings.compile:
        found["compile"] = compiled(function)
    if settings.autotune:
        found["compile max-autotune"] = compiled(function, MAX_AUTOTUNE)
    return found


def in_turns(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """A call that makes the next of `calls`."""
    if len(calls) == 1:
        return calls[0]
    following = itertools.cycle(calls)
    return lambda: next(following)()


def replayed(graph: Graph) -> Callable[[], tuple[Tensor, ...]]:
    """The results of a replay, which has to write all of them anew."""

    def results() -> tuple[Tensor, ...]:
        for tensor in graph.outputs:
            tensor.fill_(torch.nan)
        graph.replay()
        return tuple(tensor.clone() for tensor in graph.outputs)

    return results


def _need_memory(case: Case, cost: Cost, gpu: Device) -> None:
    """Raises `Unavailable` where the float64 reference of the check would not fit the memory."""
    needed = 3 * cost.footprint * max(1, 8 // itemsize(case))
    if needed > 0.9 * gpu.memory_bytes:
        there = f"{gpu.name} has {gpu.memory_bytes / 1e9:.0f} GB"
        raise Unavailable(f"its check in float64 needs about {needed / 1e9:.0f} GB, {there}")
