"""Mean loss and accuracy of a model over a whole split: stock torch against `mlpkern.evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Case, Cost, Settings
from bench.core.jax_ops import jitted, mean_loss, on_jax
from bench.core.jax_process import jax_rows
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
    parameters, ids, targets = arguments(case)

    def prepare(function: Callable[..., tuple[Tensor, Tensor]]) -> Prepared:
        @torch.no_grad()
        def call() -> tuple[Tensor, Tensor]:
            return function(parameters, ids, targets)

        return Prepared(call, lambda: call()[:1])

    rows = cpu_rows(stock, fused, prepare, settings, settings.compile_threads)
    if settings.jax:
        rows += jax_rows({"JAX": (prepare_jax, (case,))}, [settings.threads], settings.threads)
    with torch.no_grad():
        exact = stock([p.double() for p in parameters], ids, targets)
        near = stock(parameters, ids, targets)
    return Contest(rows, Yardstick(("loss",), exact[:1], near[:1]))


def arguments(case: Case) -> tuple[list[Tensor], Tensor, Tensor]:
    V, T, D, H, N = (case.sizes[letter] for letter in "VTDHN")
    generator = case.generator()
    shapes = [(V, D), (H, T * D), (H,), (V, H), (V,)]
    parameters = [torch.randn(*shape, generator=generator) for shape in shapes]
    ids = torch.randint(V, (N, T), generator=generator)
    targets = torch.randint(V, (N,), generator=generator)
    return parameters, ids, targets


def prepare_jax(case: Case) -> Prepared:
    """The same in JAX, in its process."""
    import jax
    import jax.numpy as jnp

    parameters, ids, targets = arguments(case)

    def both(parameters: list[Any], ids: Any, targets: Any) -> tuple[Any, Any]:
        embedding, weight1, bias1, weight2, bias2 = parameters
        x = embedding[ids].reshape(len(ids), -1)  # (N, T*D)
        logits = jnp.tanh(x @ weight1.T + bias1) @ weight2.T + bias2  # (N, V)
        return mean_loss(logits, targets), (logits.argmax(1) == targets).mean()

    on = [on_jax(p) for p in parameters], on_jax(ids), on_jax(targets)
    prepared = jitted(jax.jit(both), *on)
    return replace(prepared, results=lambda: prepared.call()[:1])


def fused(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    import mlpkern

    embedding, weight1, bias1, weight2, bias2 = parameters
    params = mlpkern.MLPParams(embedding, [(weight1, bias1)], (weight2, bias2))
    result = mlpkern.evaluate(params, ids, targets)
    return result.loss, result.accuracy
