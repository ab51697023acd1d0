"""What a GPU and plain torch can do without mlpkern: figures to judge any kernel by.

    python bench/yardsticks.py --out DIR    leaves yardsticks.json there

Needs torch and a CUDA device, nothing of mlpkern. Measures the limits of cuda/limits.py, and what
the benchmark has no row for: the gradient of an embedding by other means than torch's own
backward, and a step of many lecture models at once, batched in a CUDA graph.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch import Tensor

from bench.core import machine
from bench.core.case import Case, Unavailable
from bench.core.device import Device, first_line
from bench.core.files import keep_data
from bench.core.timer import LocalContestant, interleave
from bench.cuda import limits as cuda_limits
from bench.cuda.device_timer import DeviceContestant
from bench.cuda.gpu import find_gpu
from bench.cuda.providers import with_precision
from bench.ops import embedding_gather
from bench.shown.header import limit_lines
from bench.shown.text import per_second, seconds
from bench.training.stock_batched import losses_of_models

MODELS = (1, 132, 528)
SIZES = {"V": 27, "T": 3, "D": 10, "H": 200, "N": 32}
RATE = 0.1
BUDGET_S = 0.5


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What a GPU and plain torch can do.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", metavar="DIR")
    options = parser.parse_args(arguments)
    gpu = find_gpu("bench/yardsticks.py")
    path = options.out / "yardsticks.json"
    result = measure(gpu, partial(keep_data, path=path))
    print(f"\nwrote {path}")
    return 1 if any("failed" in row for row in result["rows"]) else 0


def measure(
    gpu: Device, save: Callable[[dict[str, Any]], None] = lambda result: None
) -> dict[str, Any]:
    """All of it; a row that fails says why and costs no other. `save` gets what there is so far."""
    result: dict[str, Any] = {
        "date": machine.now(),
        "commit": machine.commit(),
        "gpu": gpu.describe(),
        "versions": machine.versions("cuda"),
        "limits": asdict(cuda_limits.measure(gpu)),
        "rows": [],
    }
    print("\n".join(limit_lines(result["limits"])))
    makers: list[tuple[str, Callable[[], dict[str, float]]]] = [
        *((f"gradient of {case.shape}: {name}", lambda c=case, f=function: _timed(gpu, f(c, gpu)))
          for case in embedding_gather.CUDA_CASES for name, function in GRADIENTS.items()),
        *((f"lecture step of {count} models, batched, CUDA graph", lambda m=count: steps(m, gpu))
          for count in MODELS),
    ]  # fmt: skip
    for name, make in makers:
        row: dict[str, Any] = {"name": name}
        try:
            with with_precision("float32"):
                row |= make()
            shown = ", ".join(_said(key, value) for key, value in row.items() if key != "name")
        except Unavailable as error:
            row["not_run"] = shown = f"not run: {error}"
        except Exception as error:
            row["failed"] = shown = f"{type(error).__name__}: {first_line(error)}"
        print(f"  {name:60} {shown}", flush=True)
        result["rows"].append(row)
        save(result)
        gpu.release()
    return result


def _said(key: str, value: float) -> str:
    return f"{per_second(value)} steps/s" if key == "steps_per_s" else f"{key} {seconds(value)}"


def _timed(gpu: Device, call: Callable[[], object]) -> dict[str, float]:
    """Seconds per call as a loop pays for it, and on the GPU alone."""
    both = [
        LocalContestant("call_s", call, finish=gpu.synchronize),
        DeviceContestant("device_s", call, contextlib.nullcontext, gpu),
    ]
    return {name: t.median for name, t in interleave(both, budget_s=BUDGET_S).items()}


def _upstream(case: Case, gpu: Device) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (N*T,), the gradient of the embedded rows (N*T, D), and a table of zeros (V, D)."""
    problem = embedding_gather.problem(case, gpu.device)
    upstream = problem.grad_output.view(-1, case.sizes["D"])
    return problem.args[0].flatten(), upstream, torch.zeros_like(problem.args[1])


def by_backward(case: Case, gpu: Device) -> Callable[[], object]:
    ids, upstream, table = _upstream(case, gpu)
    return lambda: torch.ops.aten.embedding_dense_backward(upstream, ids, len(table), -1, False)


def by_index_add(case: Case, gpu: Device) -> Callable[[], object]:
    ids, upstream, table = _upstream(case, gpu)
    return lambda: table.zero_().index_add_(0, ids, upstream)


def by_product(case: Case, gpu: Device) -> Callable[[], object]:
    """The transposed one-hot matrix times the gradient, for small tables."""
    ids, upstream, table = _upstream(case, gpu)
    if len(table) > 1024:
        raise Unavailable("the one-hot matrix is too large")
    one_hot = torch.nn.functional.one_hot(ids, len(table)).to(upstream.dtype)  # made beforehand
    return lambda: one_hot.T @ upstream


GRADIENTS = {
    "embedding_dense_backward": by_backward,
    "index_add": by_index_add,
    "product with one-hot": by_product,
}


def steps(models: int, gpu: Device) -> dict[str, float]:
    """SGD steps of `models` lecture models at once, ten captured in a CUDA graph."""
    V, T, D, H, N = (SIZES[letter] for letter in "VTDHN")
    shapes = [(V, D), (H, T * D), (H,), (V, H), (V,)]
    draw = torch.Generator(gpu.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return 0.1 * torch.randn(models, *shape, generator=draw, device=gpu.device)

    parameters = [normal(*shape).requires_grad_() for shape in shapes]
    values = [p.detach() for p in parameters]
    offsets = V * torch.arange(models, device=gpu.device).view(-1, 1, 1)
    inputs = torch.randint(V, (100_000, T), generator=draw, device=gpu.device)
    targets = torch.randint(V, (100_000,), generator=draw, device=gpu.device)
    rows = torch.zeros(10, models, N, dtype=torch.int64, device=gpu.device)

    def call() -> list[Tensor]:
        losses = []
        for ix in rows.unbind():
            ids = inputs[ix] + offsets  # (M, N, T)
            loss = losses_of_models(parameters, ids, targets[ix].flatten()).sum()
            torch._foreach_add_(values, torch.autograd.grad(loss, parameters), alpha=-RATE)
            losses.append(loss)
        return [torch.stack(losses)]

    graph = gpu.capture(call)

    def replay() -> None:
        rows.random_(0, len(targets), generator=draw)
        graph.replay()

    contestant = LocalContestant("steps", replay, finish=gpu.synchronize)
    timing = interleave([contestant], budget_s=BUDGET_S)["steps"]
    if not bool(torch.isfinite(graph.outputs[0]).all()):
        raise RuntimeError("the losses are not finite")
    return {"step_of_all_s": timing.median / 10, "steps_per_s": 10 * models / timing.median}


if __name__ == "__main__":
    sys.exit(main())
