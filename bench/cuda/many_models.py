"""Training steps of many models at once on a GPU: `mlpkern.train_steps` against stock.

    lecture loop                    one model after the other, as it stands
    batched products                all models as one (stock_batched.py), one update for all
    vmap                            `torch.func.vmap` of loss and gradients, one update for all
    compile, batched                loss, gradients and update of all models compiled as one graph
    …, CUDA graph                   GRAPH_STEPS steps captured at once, batches drawn inside

The unit is a step of one model. For the check all take the batches of the processor's generators.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Cost, Settings
from bench.core.device import Device
from bench.core.providers import STOCK, Contest, Prepared, Provider, compiled
from bench.cuda.device_run import DeviceRun, on_processor
from bench.cuda.providers import GRAPH, STOCK_GRAPH, stock_switch
from bench.cuda.runs import run_rows
from bench.training.case import TrainingCase, every_model
from bench.training.step import NAMES
from bench.training.stock_batched import batched_sgd_step, sum_and_losses
from bench.training.stock_loops import StockRun, lecture_loop, loss_of, stock_results
from bench.training.stock_rows import BASELINE

GRAPH_STEPS = 10
Step = Callable[[Tensor, Tensor], Tensor]  # ids and targets of a batch to the losses (M,) before it


class ManyModels:
    """The models of a case as stacked parameters on a GPU, in plain torch."""

    def __init__(self, case: TrainingCase, device: str):
        runs = [StockRun(case, m=m) for m in every_model(case)]
        self.case, self.rows = case, case.sizes["N"]
        self.values = [
            torch.stack(same).to(device) for same in zip(*(r.values for r in runs), strict=True)
        ]
        self.parameters = [value.detach().requires_grad_() for value in self.values]
        self.inputs, self.targets = runs[0].inputs.to(device), runs[0].targets.to(device)
        self.generators = [run.generator for run in runs]
        self.on_device = torch.Generator(device).manual_seed(0)
        moved = torch.arange(len(runs), device=device) * case.sizes["V"]
        self.moved = moved.view(-1, 1, 1)  # ids of model m in the stacked embedding

    def draw(self, steps: int) -> Tensor:
        """Row numbers (S, M, N)."""
        size = (steps, len(self.generators), self.rows)
        device = self.targets.device
        return torch.randint(len(self.targets), size, generator=self.on_device, device=device)

    def checked(self, steps: int) -> Tensor:
        """The same as the processor's generators draw them."""
        count, size = len(self.targets), (steps, self.rows)
        drawn = [torch.randint(count, size, generator=g) for g in self.generators]
        return torch.stack(drawn, 1).to(self.targets.device)

    def batches(self, rows: Tensor) -> zip[tuple[Tensor, ...]]:
        """Ids (M, N, T), moved on, and targets (M * N,) of each step."""
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


def compiled_step(whole: Callable[..., Tensor]) -> Callable[[ManyModels], Step]:
    return lambda models: partial(whole, models.values)


class GraphedModels:
    """Steps of all models captured as one CUDA graph; a replay draws its batches first."""

    def __init__(
        self, models: ManyModels, make: Callable[[ManyModels], Step], gpu: Device, steps: int
    ):
        self.models, step = models, make(models)
        self.rows = models.draw(steps)
        before = [value.clone() for value in models.values]
        self.graph = gpu.capture(
            lambda: [torch.stack([step(*batch) for batch in models.batches(self.rows)], 1)]
        )
        for value, old in zip(models.values, before, strict=True):  # warming up has trained
            value.copy_(old)

    def call(self) -> None:
        self.rows.random_(0, len(self.models.targets), generator=self.models.on_device)
        self.graph.replay()

    def results(self) -> tuple[Tensor, ...]:
        self.rows.copy_(self.models.checked(len(self.rows)))
        self.graph.outputs[0].fill_(torch.nan)
        self.graph.replay()
        return on_processor(self.graph.outputs[0], self.models.values)


def many_contest(case: TrainingCase, cost: Cost, settings: Settings, gpu: Device) -> Contest:
    """The provider table, in the order in which rows are printed."""
    switch, rows = stock_switch(case.dtype), []
    make = partial(_lecture_row, case, gpu.device)
    rows.append(Provider(BASELINE, STOCK, 1, make, switch))
    steps: dict[str, Callable[[ManyModels], Step]] = {
        "batched products": eager_step,
        "vmap": vmap_step,
    }
    if settings.compile:
        steps["compile, batched"] = compiled_step(compiled(batched_sgd_step))
    for name, step in steps.items():
        rows.append(Provider(name, STOCK, 1, partial(_loop_row, case, step, gpu), switch))
    for name, step in steps.items():
        make = partial(_graph_row, case, step, gpu)
        rows.append(Provider(name + GRAPH, STOCK_GRAPH, 1, make, switch))
    rows += run_rows(case, gpu.device)
    exact = stock_results(case, lecture_loop, torch.float64)
    with switch():
        near = _loop_results(case, eager_step, gpu.device)
    return Contest(rows, Yardstick(NAMES, exact, near), gpu)


def _lecture_row(case: TrainingCase, device: str) -> Prepared:
    """One model after the other."""
    runs = [DeviceRun(case, device, m) for m in every_model(case)]
    units = case.stock_steps * len(runs)

    def results() -> tuple[Tensor, ...]:
        checked = [DeviceRun(case, device, m) for m in every_model(case)]
        for run in checked:
            run.check_batches(case.checked_steps)
        losses = torch.stack(lecture_loop(checked, case.checked_steps)).detach()
        values = [torch.stack(same) for same in zip(*(r.values for r in checked), strict=True)]
        return on_processor(losses.view(len(checked), -1), values)

    return Prepared(lambda: lecture_loop(runs, case.stock_steps), results, units)


def _loop_row(case: TrainingCase, make: Callable[[ManyModels], Step], gpu: Device) -> Prepared:
    models = ManyModels(case, gpu.device)
    step, steps = make(models), GRAPH_STEPS

    def call() -> None:
        for batch in models.batches(models.draw(steps)):
            step(*batch)

    results = partial(_loop_results, case, make, gpu.device)
    return Prepared(call, results, steps * case.sizes["M"])


def _loop_results(
    case: TrainingCase, make: Callable[[ManyModels], Step], device: str
) -> tuple[Tensor, ...]:
    models = ManyModels(case, device)
    step = make(models)
    batches = models.batches(models.checked(case.checked_steps))
    return on_processor(torch.stack([step(*batch) for batch in batches], 1), models.values)


def _graph_row(case: TrainingCase, make: Callable[[ManyModels], Step], gpu: Device) -> Prepared:
    def fresh(steps: int) -> GraphedModels:
        return GraphedModels(ManyModels(case, gpu.device), make, gpu, steps)

    timed = fresh(GRAPH_STEPS)
    units = GRAPH_STEPS * case.sizes["M"]
    return Prepared(timed.call, lambda: fresh(case.checked_steps).results(), units)
