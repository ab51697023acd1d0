"""The training of a case in JAX: the whole loop as one jitted `lax.scan` over the steps.

    gather, one-hot   how the embedding is read, and so how its gradient is summed
    vmap              several models as one

Parameters and moments are donated, so the loop updates them in place. Minibatches are drawn by
the generators of the models for all steps at once, as for all providers, and gathered inside the
call before the scan; a gather in each step, an unrolled scan and transposed weights were no faster.
Runs in a process of JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.core.jax_ops import mean_loss, on_jax
from bench.core.providers import Prepared
from bench.training.case import BETAS, EPS, WEIGHT_DECAY, TrainingCase, every_model
from bench.training.stock_loops import StockRun

GATHER, ONE_HOT = "gather", "one-hot"
LARGEST_ONE_HOT = 1024  # symbols


def steps_of_call(case: TrainingCase) -> int:
    """Nearly as many as train_steps takes of all models: starting the loop costs nothing then."""
    return max(case.run_steps // case.sizes["M"], min(case.run_steps, 100))


def prepare_scan(case: TrainingCase, embed: str, models: Sequence[int] | None = None) -> Prepared:
    """Steps of these models (all) of the case; of several by `vmap`."""
    chosen = list(every_model(case) if models is None else models)
    scan = make_scan(case, embed, len(chosen))
    run, steps = ScanRun(case, scan, chosen), steps_of_call(case)

    def results() -> tuple[Tensor, ...]:
        fresh = ScanRun(case.checked, scan, chosen)
        losses = fresh.take(case.checked_steps)
        found = (torch.from_dlpack(array).cpu() for array in (losses, *fresh.carry[0]))
        return case.compared(tuple(t if len(chosen) > 1 else t[None] for t in found))

    return Prepared(lambda: run.take(steps), results, steps * len(chosen))


class ScanRun:
    """Parameters, data and generators of models of a case, which `scan` trains."""

    def __init__(self, case: TrainingCase, scan: Callable[..., Any], models: list[int]):
        self.case, self.scan, self.models = case, scan, models
        self.runs = [StockRun(case, m=m) for m in models]
        self.data = on_jax(self.runs[0].inputs), on_jax(self.runs[0].targets)
        self.done = 0
        self.carry = self._start()

    def take(self, steps: int) -> Any:
        """Losses (S,), of several models (M, S), after S steps."""
        if self.case.length and self.done == self.case.length:
            self.carry, self.done = self._start(), 0
        rows = torch.stack([run.draw_rows(steps) for run in self.runs], 1)  # (S, M, N)
        rates = self._rates(steps)  # (S, M) or (S, M, 2)
        if len(self.models) == 1:
            rows, rates = rows[:, 0], rates[:, 0]
        self.carry, losses = self.scan(self.carry, self.data, on_jax(rows), on_jax(rates))
        return losses.T.block_until_ready()

    def _start(self) -> Any:
        """Parameters, and for AdamW two moments, of several models with a leading M."""
        import jax.numpy as jnp

        values = [torch.stack(same) for same in zip(*(r.values for r in self.runs), strict=True)]
        if len(self.models) == 1:
            values = [value[0] for value in values]
        parameters = [on_jax(value) for value in values]
        moments = [] if self.runs[0].sgd else parameters
        return parameters, *([jnp.zeros_like(p) for p in moments] for _ in range(2))

    def _rates(self, steps: int) -> Tensor:
        first, self.done = self.done, self.done + steps
        if self.runs[0].sgd:
            return torch.tensor([self.case.rates(m, first, steps) for m in self.models]).T
        return torch.stack([torch.stack([*run.corrections(steps)]) for run in self.runs], 1)


def make_scan(case: TrainingCase, embed: str, models: int) -> Callable[..., Any]:
    """The jitted loop over the steps of a call."""
    import jax

    step = make_step(case, embed)
    if models > 1:
        step = jax.vmap(step)

    @partial(jax.jit, donate_argnums=0)
    def scan(carry: Any, data: Any, rows: Any, rates: Any) -> tuple[Any, Any]:
        inputs, targets = data
        return jax.lax.scan(step, carry, (inputs[rows], targets[rows], rates))

    return scan


def make_step(case: TrainingCase, embed: str) -> Callable[..., Any]:
    """One step of one model: carry, minibatch -> carry, loss."""
    import jax
    import jax.numpy as jnp

    symbols, sgd = case.sizes["V"], case.optimizer == "sgd"
    frozen = int(case.frozen_embedding)  # parameters, from the first, that are not trained

    def loss_of(trained: list[Any], kept: list[Any], ids: Any, targets: Any) -> Any:
        embedding, weight1, bias1, weight2, bias2 = [*kept, *trained]
        if embed == GATHER:
            x = embedding[ids]  # (N, T, D)
        else:
            x = jax.nn.one_hot(ids, symbols, dtype=embedding.dtype) @ embedding
        h = jnp.tanh(x.reshape(len(ids), -1) @ weight1.T + bias1)  # (N, H)
        return mean_loss(h @ weight2.T + bias2, targets)

    def adamw(p: Any, grad: Any, mean: Any, square: Any, rate: Any, root: Any) -> tuple[Any, ...]:
        mean = mean + (1 - BETAS[0]) * (grad - mean)
        square = BETAS[1] * square + (1 - BETAS[1]) * grad * grad
        if p.ndim == 2:
            p = p * (1 - case.rate * WEIGHT_DECAY)
        return p - rate * mean / (jnp.sqrt(square) / root + EPS), mean, square

    def step(carry: Any, minibatch: Any) -> tuple[Any, Any]:
        parameters, *moments = carry
        ids, targets, rate = minibatch
        kept, trained = parameters[:frozen], parameters[frozen:]
        loss, grads = jax.value_and_grad(loss_of)(trained, kept, ids, targets)
        if sgd:
            trained = [p - rate * grad for p, grad in zip(trained, grads, strict=True)]
            return ([*kept, *trained], *moments), loss
        updated = [adamw(*four, *rate) for four in zip(trained, grads, *moments, strict=True)]
        return tuple([*same] for same in zip(*updated, strict=True)), loss

    return step
