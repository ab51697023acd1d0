"""The rows of JAX for a training: one thread and all, several models by `vmap` or by processes."""

from __future__ import annotations

import contextlib
from functools import partial

import torch

from bench.core.case import Settings
from bench.core.jax_process import JaxProcess, Loaded, Rows, first_cores, jax_rows, why_not
from bench.core.providers import JAX, Prepared, Provider
from bench.training.case import TrainingCase, every_model
from bench.training.jax_steps import GATHER, LARGEST_ONE_HOT, ONE_HOT, prepare_scan


def training_rows(case: TrainingCase, settings: Settings) -> list[Provider]:
    """All of them, in the order in which they are printed."""
    if not settings.jax:
        return []
    threads, models = settings.threads, case.sizes["M"]
    rows = jax_rows(_scans(case), sorted({threads} if case.slow else {1, threads}), threads)
    if models > 1 and not why_not():
        rows.append(_processes_row(case, min(models, max(2, threads))))
    return rows


def gpu_rows(case: TrainingCase, settings: Settings) -> list[Provider]:
    """The scans on a GPU, where JAX has a backend for it; none elsewhere. Not yet run on one."""
    if not settings.jax or why_not("cuda"):
        return []
    return jax_rows(_scans(case), [1], 1, f"cuda {case.dtype}")


def _scans(case: TrainingCase) -> Rows:
    embeds = [GATHER] if case.slow or case.sizes["V"] > LARGEST_ONE_HOT else [GATHER, ONE_HOT]
    together = ", vmap" if case.sizes["M"] > 1 else ""
    return {f"JAX scan{together}, {e}": (prepare_scan, (case, e)) for e in embeds}


def _processes_row(case: TrainingCase, count: int) -> Provider:
    name = f"JAX scan, {GATHER}, {count} processes"
    make = partial(side_by_side, case, count)
    return Provider(name, JAX, count, make, contextlib.nullcontext)


def side_by_side(case: TrainingCase, count: int) -> Prepared:
    """The models shared out to a process a core, each with one thread."""
    shares = [list(every_model(case)[i::count]) for i in range(count)]
    cores = first_cores(count)
    loaded = [
        Loaded(JaxProcess.on((cores[i % len(cores)],)), prepare_scan, (case, GATHER, share))
        for i, share in enumerate(shares)
    ]

    def call() -> None:
        for one in loaded:
            one.begin()
        for one in loaded:
            one.process.answer()

    def results() -> tuple[torch.Tensor, ...]:
        order = torch.tensor([m for share in shares for m in share]).argsort()
        parts = zip(*(one.results() for one in loaded), strict=True)
        return tuple(torch.cat(part)[order] for part in parts)

    def close() -> None:
        for one in loaded:
            one.close()

    return Prepared(call, results, sum(one.units for one in loaded), close)
