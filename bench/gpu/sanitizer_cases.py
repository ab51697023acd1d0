"""Every CUDA kernel once over awkward shapes, small enough to run under compute-sanitizer.

    compute-sanitizer --tool racecheck python -m bench.gpu.sanitizer_cases [BACKEND]

With PYTORCH_NO_CUDA_MEMORY_CACHING=1 each tensor is an allocation of its own, so that memcheck sees
where it ends. Results are compared with plain torch as well; exit status 1 where they differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import mlpkern
from bench.cuda.gpu import Gpu
from mlpkern.registry import has_op

# One element, below and above a tile, primes, the lecture's sizes, rows that no vector load divides
GATHERS = ((1, 1, 1), (27, 10, 999), (300, 64, 2053), (5003, 17, 1021))  # V, D, ids
LAYERS = ((1, 1, 1), (33, 30, 200), (129, 67, 70), (64, 200, 200))  # N, K, H
LOGITS = ((1, 1), (131, 27), (5, 301), (9, 1000), (3, 32003))  # N, V
OPTIONS = ({}, {"label_smoothing": 0.1}, {"reduction": "none"}, {"ignore_index": 0})
SINGLE, HALF = torch.float32, torch.bfloat16
TOLERANCE = {SINGLE: 2e-3, HALF: 6e-2}  # of the largest value: the tests have the sharp ones

# What train_steps does: V, T, D, hidden widths, N and its options. The sizes of the lecture; every
# option at awkward sizes; a second layer.
RUNS: tuple[tuple[int, int, int, tuple[int, ...], int, dict[str, Any]], ...] = (
    (27, 3, 10, (200,), 32, {}),
    (27, 3, 10, (200,), 32, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (13, 2, 5, (37,), 7, {"optimizer": "adamw", "max_grad_norm": 0.5, "label_smoothing": 0.1}),
    (5, 1, 1, (1,), 1, {"input_dropout": 0.2, "hidden_dropout": 0.3, "seed": 7}),
    (11, 3, 4, (19, 23), 33, {"max_grad_norm": 0.5, "hidden_dropout": 0.3}),
)

Call = Callable[..., Tensor]


def cases(device: str) -> Iterator[tuple[str, Call, Call, tuple[Tensor, ...]]]:
    """What is called, our function, torch's, and the arguments."""
    for dtype in (SINGLE, HALF):
        for V, D, count in GATHERS:
            weight = torch.randn(V, D, device=device, dtype=dtype)
            for name, high in (("ids", V), ("one id", 1)):
                ids = torch.randint(high, (count, 1), device=device)
                text = f"embedding_gather {V}x{D}, {count} {name}, {dtype}"
                yield text, mlpkern.embedding_gather, _gather, (ids, weight)
        for N, K, H in LAYERS:
            shapes = ((N, K), (H, K), (H,))
            layer = tuple(torch.randn(s, device=device, dtype=dtype) / K**0.5 for s in shapes)
            text = f"linear_tanh {N}x{K}->{H}, {dtype}"
            yield text, mlpkern.linear_tanh, _layer, layer
            unaligned = torch.randn(N, K + 1, device=device, dtype=dtype)[:, 1:]
            yield f"{text}, unaligned", mlpkern.linear_tanh, _layer, (unaligned, *layer[1:])
        for N, V in LOGITS:
            logits = torch.randn(N, V, device=device, dtype=dtype)
            target = torch.randint(V, (N,), device=device)
            target[-1] = V - 1  # at least one that no option ignores, where V > 1
            for options in OPTIONS if V > 1 else OPTIONS[:3]:
                ours = lambda x, t, o=options: mlpkern.cross_entropy(x, t, **o)  # noqa: E731
                stock = lambda x, t, o=options: F.cross_entropy(x, t, **o)  # noqa: E731
                yield f"cross_entropy {N}x{V}, {dtype}, {options}", ours, stock, (logits, target)


def _gather(ids: Tensor, weight: Tensor) -> Tensor:
    return F.embedding(ids, weight).flatten(-2)


def _layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.tanh(F.linear(x, weight, bias))


def results(function: Call, arguments: tuple[Tensor, ...], dtype: torch.dtype) -> list[Tensor]:
    """Output and gradients in `dtype`, for an upstream gradient that every dtype can hold."""
    leaves = [
        a.detach().to(dtype).requires_grad_() if a.is_floating_point() else a for a in arguments
    ]
    output = function(*leaves)
    upstream = torch.arange(output.numel(), device=output.device).view(output.shape) % 7 - 2
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return [output.detach(), *torch.autograd.grad(output, wanted, upstream.to(output.dtype))]


def difference(ours: Tensor, exact: Tensor) -> float:
    """Largest distance over the largest value; infinite where only one of them is finite."""
    if not bool(torch.isfinite(ours).eq(torch.isfinite(exact)).all()):
        return float("inf")
    distance = torch.nan_to_num(ours.double() - exact).abs().max()
    return float(distance / torch.nan_to_num(exact).abs().max().clamp_min(1e-6))


def compare_all(device: str) -> list[str]:
    """Runs all cases; a line for each result that is wrong."""
    torch.manual_seed(0)
    wrong = []
    for text, ours, stock, arguments in cases(device):
        dtype = next(a.dtype for a in arguments if a.is_floating_point())
        pairs = zip(
            results(ours, arguments, dtype), results(stock, arguments, torch.float64), strict=True
        )
        largest = max(difference(a, b) for a, b in pairs)
        if not largest <= TOLERANCE[dtype]:
            wrong.append(f"{text}: off by {largest:.2g} of the largest value")
    return wrong


def out_of_range(device: str) -> list[str]:
    """Ids and targets out of range may read or write nothing, and are reported."""
    wrong = []
    weight = torch.randn(27, 10, device=device, requires_grad=True)
    logits = torch.randn(5, 27, device=device, requires_grad=True)
    for bad in (27, -1, 1 << 40):
        ids = torch.tensor([0, bad, 3], device=device)
        target = torch.tensor([0, 5, bad, 2, 26], device=device)
        for name, call in {
            "embedding_gather": lambda i=ids: mlpkern.embedding_gather(i.view(3, 1), weight),
            "cross_entropy": lambda t=target: mlpkern.cross_entropy(logits, t),
        }.items():
            try:
                call().sum().backward()
                mlpkern.check_errors()
            except IndexError:
                continue
            wrong.append(f"{name}: {bad} is out of range and was not reported")
    return wrong


@dataclass(frozen=True)
class Run:
    """A training of two models from random parameters, and their evaluation."""

    V: int
    T: int
    D: int
    hidden: tuple[int, ...]
    N: int
    options: dict[str, Any]
    steps: int = 3
    rate: float = 0.05

    def tensors(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Parameters; inputs and targets; the row numbers of the batches."""
        generator = torch.Generator().manual_seed(self.V)
        widths = [self.T * self.D, *self.hidden, self.V]
        shapes = [(self.V, self.D), *(s for k, h in pairwise(widths) for s in ((h, k), (h,)))]
        start = [torch.randn(2, *shape, generator=generator) / 4 for shape in shapes]
        inputs = torch.randint(self.V, (41, self.T), generator=generator)
        targets = torch.randint(self.V, (41,), generator=generator)
        return (
            start,
            [inputs, targets],
            torch.randint(41, (self.steps, self.N), generator=generator),
        )

    def results(self, place: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
        """On the backend in use: losses and parameters after the steps; the evaluation."""
        start, data, batches = self.tensors()
        params = mlpkern.MLPParams.from_tensors([t.to(place, dtype) for t in start])
        data = [t.to(place) for t in data]
        losses = mlpkern.train_steps(params, *data, batches.to(place), self.rate, **self.options)
        trained = [t.cpu() for t in (losses, *params.tensors())]
        return trained, [t.cpu() for t in mlpkern.evaluate(params, *data)]

    def errors(self, device: str) -> tuple[float, float]:
        """Of the training and of the evaluation, against the reference in float64 on the CPU."""
        with mlpkern.use_backend("reference"):
            exact = self.results("cpu", torch.float64)
        ours = self.results(device, SINGLE)
        pairs = [zip(a, b, strict=True) for a, b in zip(ours, exact, strict=True)]
        trained, evaluated = (max(difference(a, b) for a, b in pair) for pair in pairs)
        return trained, evaluated


def runs(device: str) -> list[str]:
    """A line for each training, and its evaluation, that is wrong."""
    wrong = []
    for sizes in RUNS:
        run = Run(*sizes)
        largest = max(run.errors(device))
        if not largest <= TOLERANCE[SINGLE]:
            text = f"train_steps V={run.V} T={run.T} D={run.D} H={run.hidden} N={run.N}"
            wrong.append(f"{text} {run.options}: off by {largest:.2g} of the largest value")
    return wrong


def main(arguments: list[str]) -> int:
    backend = arguments[0] if arguments else "cuda"
    device = "cpu" if backend in ("cpu", "reference") else Gpu.device
    with mlpkern.use_backend(backend):
        wrong = compare_all(device) + out_of_range(device)
        wrong += runs(device) if has_op(backend, "train_steps") else []
    count = sum(1 for _ in cases(device)) + len(RUNS)
    print("\n".join([*wrong, f"{count} cases on {backend}, {len(wrong)} wrong"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
