"""Trainings in plain torch whose data, parameters and minibatches live on a GPU.

For the check of a row the minibatches are those that the generators on the CPU draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from bench.core.device import Device
from bench.core.providers import Prepared
from bench.training.case import TrainingCase
from bench.training.stock_loops import StockRun

GRAPH_STEPS = 10
Step = Callable[[Tensor, Tensor], Tensor]  # ids and targets of a minibatch to the loss before it


class Trainee(Protocol):
    """One model or several as one, as a CUDA graph of their steps needs them."""

    values: list[Tensor]
    targets: Tensor
    on_device: torch.Generator

    def draw_rows(self, steps: int) -> Tensor: ...
    def checked_rows(self, steps: int) -> Tensor: ...
    def gathered(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]: ...


class DeviceRun(StockRun):
    """`StockRun` on `device`; it draws its minibatches there, except those of a check."""

    def __init__(
        self, case: TrainingCase, device: str, m: int = 0, dtype: torch.dtype = torch.float32
    ):
        super().__init__(case, dtype, m)
        self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
        self.parameters = [
            p.detach().to(device).requires_grad_(p.requires_grad) for p in self.parameters
        ]
        self.values = [p.detach() for p in self.parameters]
        self.checked: Iterator[Tensor] = iter(())
        self.on_device = torch.Generator(device).manual_seed(0)

    def draw(self) -> Tensor:
        rows = next(self.checked, None)
        return self.draw_rows(1)[0] if rows is None else rows

    def draw_chunk(self, steps: int) -> tuple[Tensor, Tensor]:
        drawn = list(self.checked)
        rows = torch.stack(drawn) if drawn else self.draw_rows(steps)
        return self.inputs[rows], self.targets[rows]

    def draw_rows(self, steps: int) -> Tensor:
        """Row numbers (S, N), drawn on the device."""
        size, device = (steps, self.rows), self.targets.device
        return torch.randint(len(self.targets), size, generator=self.on_device, device=device)

    def checked_rows(self, steps: int) -> Tensor:
        """Row numbers (S, N) from the generator on the CPU, which the next steps take."""
        rows = torch.randint(len(self.targets), (steps, self.rows), generator=self.generator)
        rows = rows.to(self.targets.device)
        self.checked = iter(rows.unbind())
        return rows

    def gathered(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids (N, T) and targets (N,) of each step."""
        return zip(self.inputs[rows].unbind(), self.targets[rows].unbind(), strict=True)


class GraphedSteps:
    """Steps captured as one CUDA graph; a replay draws its minibatches first."""

    def __init__(self, trainee: Trainee, step: Step, gpu: Device, steps: int):
        self.trainee, self.rows = trainee, trainee.draw_rows(steps)
        before = [value.clone() for value in trainee.values]
        self.graph = gpu.capture(
            lambda: [torch.stack([step(*batch) for batch in trainee.gathered(self.rows)], -1)]
        )
        for value, old in zip(trainee.values, before, strict=True):  # warming up has trained
            value.copy_(old)

    def call(self) -> None:
        trainee = self.trainee
        self.rows.random_(0, len(trainee.targets), generator=trainee.on_device)
        self.graph.replay()

    def results(self) -> tuple[Tensor, ...]:
        self.rows.copy_(self.trainee.checked_rows(len(self.rows)))
        self.graph.outputs[0].fill_(torch.nan)
        self.graph.replay()
        return on_cpu(self.graph.outputs[0], self.trainee.values)


def graph_row(
    case: TrainingCase, fresh: Callable[[], tuple[Trainee, Step]], gpu: Device
) -> Prepared:
    """The row of GRAPH_STEPS steps in a CUDA graph; `fresh` makes the models and their step."""
    timed = GraphedSteps(*fresh(), gpu, GRAPH_STEPS)
    return Prepared(
        timed.call,
        lambda: GraphedSteps(*fresh(), gpu, case.checked_steps).results(),
        GRAPH_STEPS * case.sizes["M"],
    )


def on_cpu(losses: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
    return (losses.cpu(), *(p.cpu().clone() for p in parameters))
