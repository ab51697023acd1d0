"""A run of plain torch, or of an engine, whose rows, parameters and batches live on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.core.providers import Prepared
from bench.training.case import TrainingCase, start
from bench.training.stock_loops import StockRun

if TYPE_CHECKING:
    from mlpkern.lm.model.state import TrainState
    from mlpkern.lm.training.engines import Engine


class DeviceRun(StockRun):
    """`StockRun` on `device`; it draws its batches there, except those of a check."""

    def __init__(self, case: TrainingCase, device: str, m: int = 0):
        super().__init__(case, m=m)
        self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
        self.parameters = [
            p.detach().to(device).requires_grad_(p.requires_grad) for p in self.parameters
        ]
        self.values = [p.detach() for p in self.parameters]
        self.checked = iter(())
        self.on_device = torch.Generator(device).manual_seed(0)

    def draw(self) -> Tensor:
        rows = next(self.checked, None)
        return self.draw_rows(self.rows) if rows is None else rows

    def draw_chunk(self, steps: int) -> tuple[Tensor, Tensor]:
        drawn = list(self.checked)
        ix = torch.stack(drawn) if drawn else self.draw_rows(steps, self.rows)
        return self.inputs[ix], self.targets[ix]

    def draw_rows(self, *size: int) -> Tensor:
        device = self.targets.device
        return torch.randint(len(self.targets), size, generator=self.on_device, device=device)

    def check_batches(self, steps: int) -> Tensor:
        """Lets the next steps take the batches of the processor's generator; returns them."""
        rows = torch.randint(len(self.targets), (steps, self.rows), generator=self.generator)
        rows = rows.to(self.targets.device)
        self.checked = iter(rows.unbind())
        return rows


def on_processor(losses: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
    return (losses.cpu(), *(p.cpu().clone() for p in parameters))


def engine_row(case: TrainingCase, device: str, engine: type[Engine], steps: int) -> Prepared:
    """The trainer's engine, ``steps`` steps a call; it draws its batches on the processor."""

    def fresh() -> TrainState:
        state = start(case)
        state.model.to(device)
        state.train = state.train.to(device)
        return state

    def results() -> tuple[Tensor, ...]:
        state = fresh()
        losses = engine().run_chunk(state, case.checked_steps)
        return on_processor(losses, [p.detach() for p in state.model.parameters()])

    own, state = engine(), fresh()
    return Prepared(lambda: own.run_chunk(state, steps), results, steps)
