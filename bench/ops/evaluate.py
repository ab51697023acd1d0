"""Mean loss and accuracy of a model over a whole split: stock torch against `mlpkern.evaluate`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Case, Cost, Settings
from bench.core.providers import Contest, Prepared, cpu_rows

SIZES = {"V": 27, "T": 3, "D": 10, "H": 200, "N": 182_625}  # all training rows of the names
SHAPE = " ".join(f"{name}={size}" for name, size in SIZES.items())
CASES = (Case("evaluate", SHAPE, "float32", SIZES, quick=True),)


def cost(case: Case) -> Cost:
    """Two flops per weight of the two products and row; ids and targets read once."""
    rows, classes, hidden = case.sizes["N"], case.sizes["V"], case.sizes["H"]
    context, width = case.sizes["T"], case.sizes["T"] * case.sizes["D"]
    ids = 8 * rows * (context + 1)
    return Cost(
        bytes=ids,
        flops=2 * rows * (width * hidden + hidden * classes),
        footprint=ids,
        largest_output=4 * rows * hidden,
    )


def stock(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    embedding, weight1, bias1, weight2, bias2 = parameters
    x = F.embedding(ids, embedding).flatten(1)  # (N, T*D)
    logits = F.linear(torch.tanh(F.linear(x, weight1, bias1)), weight2, bias2)  # (N, V)
    return F.cross_entropy(logits, targets), (logits.argmax(1) == targets).float().mean()


def contest(case: Case, cost: Cost, settings: Settings) -> Contest:
    """Stock eager and compiled with one and all threads, and the backends of mlpkern.

    The loss is checked; the accuracy jumps by 1 / N where two logits are nearly equal.
    """
    V, T, D, H, N = (case.sizes[letter] for letter in "VTDHN")
    generator = case.generator()
    shapes = [(V, D), (H, T * D), (H,), (V, H), (V,)]
    parameters = [torch.randn(*shape, generator=generator) for shape in shapes]
    ids = torch.randint(V, (N, T), generator=generator)
    targets = torch.randint(V, (N,), generator=generator)

    def prepare(function: Callable[..., tuple[Tensor, Tensor]]) -> Prepared:
        @torch.no_grad()
        def call() -> tuple[Tensor, Tensor]:
            return function(parameters, ids, targets)

        return Prepared(call, lambda: call()[:1])

    rows = cpu_rows(stock, fused, prepare, settings, settings.compile_threads)
    with torch.no_grad():
        exact = stock([p.double() for p in parameters], ids, targets)
        near = stock(parameters, ids, targets)
    return Contest(rows, Yardstick(("loss",), exact[:1], near[:1]))


def fused(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    import mlpkern

    embedding, weight1, bias1, weight2, bias2 = parameters
    params = mlpkern.MLPParams(embedding, [(weight1, bias1)], (weight2, bias2))
    result = mlpkern.evaluate(params, ids, targets)
    return result.loss, result.accuracy
