"""`mlpkern.train_steps` on a GPU: whole chunks of training in one call, of one model or of many.

    run          batches drawn on the GPU by the call, as for the loops of stock
    engine run   the trainer's engine, which draws on the processor (one model)

Of many models a unit is a step of one of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.core.providers import MLPKERN, Prepared, Provider
from bench.cuda.device_run import engine_row
from bench.cuda.providers import OURS, our_switch
from bench.training.case import TrainingCase, every_model, start
from bench.training.step import OURS as RUN

ENGINE_RUN = "engine run"


class DeviceModels:
    """All models of a case on a GPU as `mlpkern.train_steps` takes them."""

    def __init__(self, case: TrainingCase, device: str):
        import mlpkern

        self.case = case
        states = [start(case, m) for m in every_model(case)]
        own = [mlpkern.MLPParams.from_module(state.model) for state in states]
        self.params = mlpkern.MLPParams.stack(own).map(lambda tensor: tensor.to(device))
        self.train = states[0].train.to(device)
        self.state = mlpkern.OptimizerState.zeros(self.params, case.optimizer)
        self.generators = [state.generator for state in states]
        self.on_device = torch.Generator(device).manual_seed(0)

    def call(self) -> None:
        self.take(self.draw(self.case.run_steps))

    def draw(self, steps: int) -> Tensor:
        """Row numbers (M, S, N)."""
        size = (len(self.generators), steps, self.case.sizes["N"])
        device = self.on_device.device
        return torch.randint(len(self.train), size, generator=self.on_device, device=device)

    def take(self, rows: Tensor) -> Tensor:
        """The losses (M, S) of S steps on the batches ``rows`` (M, S, N)."""
        import mlpkern

        data = (self.train.inputs, self.train.targets)
        return mlpkern.train_steps(self.params, *data, rows, self.case.rate, state=self.state)

    def results(self) -> tuple[Tensor, ...]:
        """Losses and parameters after the checked steps, with a leading M where M > 1."""
        size = (self.case.checked_steps, self.case.sizes["N"])
        drawn = [torch.randint(len(self.train), size, generator=g) for g in self.generators]
        losses = self.take(torch.stack(drawn).to(self.on_device.device))
        found = [tensor.cpu().clone() for tensor in (losses, *self.params.tensors())]
        return tuple(found if len(drawn) > 1 else (tensor[0] for tensor in found))


def run_rows(case: TrainingCase, device: str) -> list[Provider]:
    """The rows of train_steps, in the order in which they are printed."""
    switch = our_switch(OURS, case.dtype)

    def run() -> Prepared:
        models = DeviceModels(case, device)
        units = case.run_steps * case.sizes["M"]
        return Prepared(models.call, lambda: DeviceModels(case, device).results(), units)

    rows = [Provider(RUN, MLPKERN, 1, run, switch, OURS)]
    if case.sizes["M"] == 1:
        rows.append(Provider(ENGINE_RUN, MLPKERN, 1, lambda: _engine(case, device), switch, OURS))
    return rows


def _engine(case: TrainingCase, device: str) -> Prepared:
    from mlpkern.lm.training.engines import RunEngine

    return engine_row(case, device, RunEngine, case.run_steps)
