"""Our rows of a training on a GPU that make many steps in one call.

run          `mlpkern.train_steps` on minibatches that the call draws on the GPU, as for the
             loops of stock; of many models a unit is a step of one of them
engine run   the trainer's engine, which draws on the CPU (one model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.core.providers import MLPKERN, Prepared, Provider
from bench.cuda.device_run import on_cpu
from bench.cuda.providers import OURS, our_switch
from bench.training.case import TrainingCase, start
from bench.training.step import OURS as RUN
from bench.training.step import Run

if TYPE_CHECKING:
    from mlpkern.lm import Engine, TrainState

ENGINE_RUN = "engine run"


class DeviceModels(Run):
    """All models of a case on a GPU; minibatches are drawn there, except those of a check."""

    def __init__(self, case: TrainingCase, device: str):
        super().__init__(case, device)
        self.on_device = torch.Generator(device).manual_seed(0)

    def call(self) -> None:
        self.take(self.draw_rows(self.case.run_steps))

    def draw_rows(self, steps: int) -> Tensor:
        """Row numbers (M, S, N), drawn on the device."""
        size, device = (len(self.states), steps, self.case.sizes["N"]), self.device
        return torch.randint(len(self.train), size, generator=self.on_device, device=device)

    def results(self) -> tuple[Tensor, ...]:
        """Losses and parameters, with a leading M where M > 1."""
        losses, *parameters = super().results()
        found = on_cpu(losses, parameters)
        return found if len(self.states) > 1 else tuple(tensor[0] for tensor in found)


def run_rows(case: TrainingCase, device: str) -> list[Provider]:
    """The rows of train_steps, in the order in which they are printed."""
    switch = our_switch(OURS, case.dtype)

    def run() -> Prepared:
        models = DeviceModels(case, device)
        units = case.run_steps * case.sizes["M"]
        return Prepared(models.call, lambda: DeviceModels(case, device).results(), units)

    def engine() -> Prepared:
        from mlpkern.lm import RunEngine

        return engine_row(case, device, RunEngine, case.run_steps)

    rows = [Provider(RUN, MLPKERN, 1, run, switch, OURS)]
    if case.sizes["M"] == 1:
        rows.append(Provider(ENGINE_RUN, MLPKERN, 1, engine, switch, OURS))
    return rows


def engine_row(case: TrainingCase, device: str, engine: type[Engine], steps: int) -> Prepared:
    """The trainer's engine, `steps` steps a call; it draws its minibatches on the CPU."""

    def fresh() -> TrainState:
        state = start(case)
        state.model.to(device)
        state.train = state.train.to(device)
        return state

    def results() -> tuple[Tensor, ...]:
        state = fresh()
        losses = engine().run_chunk(state, case.checked_steps)
        return on_cpu(losses, [p.detach() for p in state.model.parameters()])

    own, state = engine(), fresh()
    return Prepared(lambda: own.run_chunk(state, steps), results, steps)
