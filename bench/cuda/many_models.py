"""Training steps of many models at once on a GPU: `mlpkern.train_steps` against stock.

    lecture loop                    one model after the other, as it stands
    batched products                all models as one (stock_batched.py), one update for all
    vmap                            `torch.func.vmap` of loss and gradients, one update for all
    compile, batched                loss, gradients and update of all models compiled as one graph
    …, CUDA graph                   GRAPH_STEPS steps captured at once, minibatches drawn inside

The unit is a step of one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Cost, Settings
from bench.core.device import Device
from bench.core.providers import STOCK, STOCK_GRAPH, Contest, Prepared, Provider, compiled
from bench.cuda.device_run import GRAPH_STEPS, DeviceRun, Step, graph_row, on_cpu
from bench.cuda.providers import GRAPH, stock_switch
from bench.cuda.runs import run_rows
from bench.training.case import TrainingCase, every_model
from bench.training.jax_rows import gpu_rows
from bench.training.step import NAMES, stacked
from bench.training.stock_batched import batched_sgd_step, sum_and_losses
from bench.training.stock_loops import StockRun, lecture_loop, loss_of, stock_results
from bench.training.stock_rows import BASELINE


class ManyModels:
    """The models of a case as stacked parameters on a GPU, in plain torch."""

    def __init__(self, case: TrainingCase, device: str):
        runs = [StockRun(case, m=m) for m in every_model(case)]
        self.case, self.rows = case, case.sizes["N"]
        self.values = [value.to(device) for value in stacked(run.values for run in runs)]
        self.parameters = [value.detach().requires_grad_() for value in self.values]
        self.inputs, self.targets = runs[0].inputs.to(device), runs[0].targets.to(device)
        self.generators = [run.generator for run in runs]
        self.on_device = torch.Generator(device).manual_seed(0)
        moved = torch.arange(len(runs), device=device) * case.sizes["V"]
        self.moved = moved.view(-1, 1, 1)  # offsets of ids in the stacked embedding

    def draw_rows(self, steps: int) -> Tensor:
        """Row numbers (S, M, N), drawn on the device."""
        size = (steps, len(self.generators), self.rows)
        device = self.targets.device
        return torch.randint(len(self.targets), size, generator=self.on_device, device=device)

    def checked_rows(self, steps: int) -> Tensor:
        """Row numbers (S, M, N) from the generators of the models, which draw on the CPU."""
        count, size = len(self.targets), (steps, self.rows)
        drawn = [torch.randint(count, size, generator=g) for g in self.generators]
        return torch.stack(drawn, 1).to(self.targets.device)

    def gathered(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids (M, N, T), with offsets, and targets (M * N,) of each step."""
        ids = self.inputs[rows] + self.moved
        return zip(ids.unbind(), self.targets[rows].flatten(1).unbind(), strict=True)


def eager_step(models: ManyModels) -> Step:
    def step(ids: Tensor, targets: Tensor) -> Tensor:
        total, losses = sum_and_losses(models.parameters, ids, targets)
        grads = torch.autograd.grad(total, models.parameters)
        torch._foreach_add_(models.values, grads, alpha=-models.case.rate)
        return losses.detach()

    return step


def vmap_step(models: ManyModels) -> Step:
    together = torch.func.vmap(torch.func.grad_and_value(loss_of))

    def step(ids: Tensor, targets: Tensor) -> Tensor:
        own = ids - models.moved
        grads, losses = together(models.values, own, targets.view(own.shape[:2]))
        torch._foreach_add_(models.values, grads, alpha=-models.case.rate)
        return losses

    return step


def many_contest(case: TrainingCase, cost: Cost, settings: Settings, gpu: Device) -> Contest:
    """The provider table, in the order in which rows are printed."""
    switch = stock_switch(case.dtype)
    rows = [Provider(BASELINE, STOCK, 1, partial(_lecture_row, case, gpu.device), switch)]
    steps: dict[str, Callable[[ManyModels], Step]] = {
        "batched products": eager_step,
        "vmap": vmap_step,
    }
    if settings.compile:
        whole = compiled(batched_sgd_step)
        steps["compile, batched"] = lambda models: partial(whole, models.values)
    for name, step in steps.items():
        rows.append(Provider(name, STOCK, 1, partial(_loop_row, case, step, gpu.device), switch))
    for name, step in steps.items():
        fresh = partial(_fresh, case, step, gpu.device)
        make = partial(graph_row, case, fresh, gpu)
        rows.append(Provider(name + GRAPH, STOCK_GRAPH, 1, make, switch))
    rows += gpu_rows(case, settings)
    rows += run_rows(case, gpu.device)
    exact = stock_results(case, lecture_loop, torch.float64)
    with switch():
        near = _loop_results(case, eager_step, gpu.device)
    return Contest(rows, Yardstick(NAMES, exact, near), gpu)


def _fresh(
    case: TrainingCase, step: Callable[[ManyModels], Step], device: str
) -> tuple[ManyModels, Step]:
    models = ManyModels(case, device)
    return models, step(models)


def _lecture_row(case: TrainingCase, device: str) -> Prepared:
    """One model after the other."""
    runs = [DeviceRun(case, device, m) for m in every_model(case)]

    def results() -> tuple[Tensor, ...]:
        checked = [DeviceRun(case, device, m) for m in every_model(case)]
        for run in checked:
            run.checked_rows(case.checked_steps)
        losses = torch.stack(lecture_loop(checked, case.checked_steps)).detach()
        return on_cpu(losses.view(len(checked), -1), stacked(run.values for run in checked))

    return Prepared(
        lambda: lecture_loop(runs, case.stock_steps), results, case.stock_steps * len(runs)
    )


def _loop_row(case: TrainingCase, make: Callable[[ManyModels], Step], device: str) -> Prepared:
    models, step = _fresh(case, make, device)

    def call() -> None:
        for batch in models.gathered(models.draw_rows(GRAPH_STEPS)):
            step(*batch)

    results = partial(_loop_results, case, make, device)
    return Prepared(call, results, GRAPH_STEPS * case.sizes["M"])


def _loop_results(
    case: TrainingCase, make: Callable[[ManyModels], Step], device: str
) -> tuple[Tensor, ...]:
    models, step = _fresh(case, make, device)
    batches = models.gathered(models.checked_rows(case.checked_steps))
    return on_cpu(torch.stack([step(*batch) for batch in batches], 1), models.values)
