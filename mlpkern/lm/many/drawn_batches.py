"""Draws the minibatches of many models, ahead of training on threads when a GPU trains.

Every model has its own generator, so threads can draw for different models at once, and each model
gets the same numbers as alone. Sizes: M models, S steps of a chunk, N rows of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from mlpkern.lm.model.state import TrainState

MAX_THREADS = 16
# Steps drawn at a time, so that their row numbers are still in the cache when they are copied.
PIECE = 1024


def drawn_rows(seeds: Sequence[int], rows: int, steps: int, batch_size: int) -> Tensor:
    """(M, S, N) int64 row numbers below ``rows``, each model's from a generator with its seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (steps, batch_size)
    return torch.stack(
        [torch.randint(rows, shape, generator=one, device="cpu") for one in generators]
    )


def draws_ahead(device: torch.device) -> bool:
    """Whether to draw while a chunk runs: on a GPU, which leaves the CPU idle."""
    return device.type == "cuda"


class Drawn(NamedTuple):
    """The batches of a chunk, which threads may still be drawing.

    Attributes:
        batches: (M, S, N) row numbers, int32 if these suffice
        rates: (M, S) float64, on the CPU
    """

    batches: Tensor
    rates: Tensor
    jobs: list[Future[None]]

    def wait(self) -> None:
        for job in self.jobs:
            job.result()


class Drawing:
    """Draws for ``states``, chunk after chunk; a context manager.

    `begin` moves the generators, so every chunk begun must also be trained. The work on its losses
    can run on the same threads, see `aside`.
    """

    def __init__(self, states: Sequence[TrainState], device: torch.device) -> None:
        self._states, self._pins = states, device.type == "cuda"
        self.ahead = draws_ahead(device)
        threads = min(len(states), os.cpu_count() or 1, MAX_THREADS)
        self._pool = ThreadPoolExecutor(threads, "mlpkern-draw") if self.ahead else None
        self._last: Future[None] | None = None

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=kind is not None)
            if kind is None and self._last:
                self._last.result()

    def begin(self, first: int, steps: int) -> Drawn:
        """Begins to draw ``steps`` steps from step ``first`` on; on a CPU returns them finished."""
        states = self._states
        size = (len(states), steps, states[0].config.batch_size)
        fits = len(states[0].train) < 2**31
        dtype = torch.int32 if fits else torch.int64
        # Pinned memory is copied to the GPU at the full speed of the bus.
        batches = torch.empty(size, dtype=dtype, device="cpu", pin_memory=self._pins)
        rates = torch.empty(size[:2], dtype=torch.float64, device="cpu", pin_memory=self._pins)
        work = [(s, first, batches[m], rates[m]) for m, s in enumerate(states)]
        if self._pool is None:
            for one in work:
                _draw(*one)
            return Drawn(batches, rates, [])
        return Drawn(batches, rates, [self._pool.submit(_draw, *one) for one in work])

    def aside(self, work: Callable[[Tensor], None], losses: Tensor) -> None:
        """Calls ``work(losses)``, on a thread if a GPU trains; one call after the other."""
        if self._pool is None:
            work(losses)
            return
        if self._last:
            self._last.result()
        self._last = self._pool.submit(work, losses)


def _draw(state: TrainState, first: int, batches: Tensor, rates: Tensor) -> None:
    """Fills ``batches`` (S, N) and ``rates`` (S,) of one model."""
    rates.copy_(state.config.learning_rates(first, len(rates)))
    for piece in batches.split(PIECE):
        piece.copy_(state.draw_batches(len(piece)))
