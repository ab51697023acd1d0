"""Whole training steps of one model on a GPU: minibatch drawing, forward, backward, update.

    lecture loop           draws, `.backward()`, `p.data += -lr * p.grad`: the lecture's own
    batches by chunk       `torch.autograd.grad`, one foreach update, batches gathered by the chunk
    compile, whole step    loss, gradients and update compiled as one graph
    …, CUDA graph          GRAPH_STEPS steps captured at once, minibatches drawn inside
    ops                    batches by chunk with the fused ops; in a CUDA graph as for stock
    engine ops             the trainer's engine, which captures one step by itself
    run, engine run        a chunk in one call: runs.py

Data, parameters and the drawing of minibatches are on the GPU for all but the engine, which draws
on the CPU by the chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Cost, Settings
from bench.core.device import Device
from bench.core.providers import (
    MAX_AUTOTUNE,
    MLPKERN,
    STOCK,
    STOCK_GRAPH,
    Contest,
    Prepared,
    Provider,
    Switch,
    compiled,
)
from bench.cuda.device_run import DeviceRun, Step, graph_row, on_cpu
from bench.cuda.many_models import many_contest
from bench.cuda.providers import (
    BACKENDS,
    CAPTURED,
    GRAPH,
    OURS,
    our_switch,
    stock_switch,
)
from bench.cuda.runs import engine_row, run_rows
from bench.training.case import TrainingCase, training_case
from bench.training.jax_rows import gpu_rows
from bench.training.step import NAMES, fused_loss
from bench.training.stock_loops import (
    Loop,
    Loss,
    chunk_loop,
    lecture_loop,
    loss_of,
    sgd_step,
    step_loop,
)
from bench.training.stock_rows import BASELINE

OURS_STEP, ENGINE = "ops", "engine ops"
CASES = (training_case(N=4096, stock_steps=20, run_steps=100),)
# What one multiprocessor trains, one model or one for each, in float32 and by TF32: runs.py.
RUN_CASES = tuple(
    replace(case, dtype=dtype)
    for case in (
        training_case(True, run_steps=4000),
        training_case(M=132, stock_steps=1, run_steps=1000, checked_steps=5),
    )
    for dtype in ("float32", "tf32")
)


def cuda_contest(case: TrainingCase, cost: Cost, settings: Settings, gpu: Device) -> Contest:
    """The provider table of a training step on a GPU, in the order in which rows are printed."""
    if case.sizes["M"] > 1:
        return many_contest(case, cost, settings, gpu)
    ours = [*run_rows(case, gpu.device), *_our_rows(case, gpu)]
    rows = [*_stock_rows(case, settings, gpu), *gpu_rows(case, settings), *ours]
    exact = _checked(case, lecture_loop, "cpu", torch.float64)
    with stock_switch(case.dtype)():
        near = _checked(case, lecture_loop, gpu.device)
    return Contest(rows, Yardstick(NAMES, exact, near), gpu)


def _stock_rows(case: TrainingCase, settings: Settings, gpu: Device) -> list[Provider]:
    switch, rows = stock_switch(case.dtype), []
    loops: dict[str, Loop] = {BASELINE: lecture_loop, "batches by chunk": chunk_loop(loss_of)}
    steps = {"eager": eager_step(loss_of)}
    for name, mode in {"compile": None, "compile max-autotune": MAX_AUTOTUNE}.items():
        if settings.compile and (mode is None or settings.autotune):
            whole = compiled(sgd_step, mode)
            loops[f"{name}, whole step"] = step_loop(whole)
            steps[f"{name}, whole step"] = lambda run, whole=whole: partial(whole, run.values)
    for name, loop in loops.items():
        make = partial(_loop_row, case, loop, gpu.device)
        rows.append(Provider(name, STOCK, 1, make, switch))
    for name, step in steps.items():
        make = partial(graph_row, case, partial(_fresh, case, step, gpu.device), gpu)
        rows.append(Provider(name + GRAPH, STOCK_GRAPH, 1, make, switch))
    return rows


def _our_rows(case: TrainingCase, gpu: Device) -> list[Provider]:
    rows = []
    for backend in BACKENDS:
        name = OURS_STEP if backend == OURS else f"{OURS_STEP} on {backend}"
        switch: Switch = our_switch(backend, case.dtype)
        make = partial(_loop_row, case, chunk_loop(fused_loss), gpu.device)
        rows.append(Provider(name, MLPKERN, 1, make, switch, backend))
        if backend in CAPTURED:
            fresh = partial(_fresh, case, eager_step(fused_loss), gpu.device)
            make = partial(graph_row, case, fresh, gpu)
            rows.append(Provider(name + GRAPH, MLPKERN, 1, make, switch, backend))
            make = partial(_engine_row, case, gpu.device)
            name = ENGINE if backend == OURS else f"{ENGINE} on {backend}"
            rows.append(Provider(name, MLPKERN, 1, make, switch, backend))
    return rows


def eager_step(loss_function: Loss) -> Callable[[DeviceRun], Step]:
    """A step of a run by autograd and one foreach update."""

    def of(run: DeviceRun) -> Step:
        def step(ids: Tensor, targets: Tensor) -> Tensor:
            loss = loss_function(run.parameters, ids, targets)
            run.update(torch.autograd.grad(loss, run.parameters), "foreach", run.case.rate)
            return loss.detach()

        return step

    return of


def _loop_row(case: TrainingCase, loop: Loop, device: str) -> Prepared:
    run, steps = DeviceRun(case, device), case.stock_steps
    return Prepared(lambda: loop([run], steps), lambda: _checked(case, loop, device), steps)


def _fresh(
    case: TrainingCase, step: Callable[[DeviceRun], Step], device: str
) -> tuple[DeviceRun, Step]:
    run = DeviceRun(case, device)
    return run, step(run)


def _engine_row(case: TrainingCase, device: str) -> Prepared:
    from mlpkern.lm import OpsEngine

    return engine_row(case, device, OpsEngine, case.stock_steps)


def _checked(
    case: TrainingCase, loop: Loop, device: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Losses and parameters after the checked steps of a fresh run."""
    run = DeviceRun(case, device, dtype=dtype)
    run.checked_rows(case.checked_steps)
    losses = torch.stack(loop([run], case.checked_steps)).detach()
    return on_cpu(losses, run.values)
