"""The engine ``run``: a chunk in one call of `mlpkern.train_steps`."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.training.options import options_of
from mlpkern.ops.train_steps import train_steps
from mlpkern.registry import has_op, select, status

MAX_ROWS = 8_000_000  # row numbers of a call: 64 MB


class RunEngine:
    """A chunk in one call: `mlpkern.train_steps` on the model's own parameters."""

    name = "run"
    kernels = "fused"

    def __init__(self) -> None:
        self._options: tuple[TrainConfig, dict[str, Any]] | None = None

    @staticmethod
    def unavailable(device: torch.device) -> str | None:
        kind = device.type
        if kind not in ("cpu", "cuda"):
            return f"train_steps has no kernels for {kind}"
        if not (found := status(kind)).available:
            return f"backend {kind}: {found.reason}"
        if not has_op(kind, "train_steps"):
            return f"backend {kind}: it has no train_steps"
        try:
            select("train_steps", torch.empty(0, dtype=torch.float32, device=device))
        except RuntimeError as error:  # the user names a backend that has none
            return str(error)
        return None

    def run_chunk(self, state: TrainState, steps: int) -> Tensor:
        config, train, params = state.config, state.train, state.params
        if self._options is None or self._options[0] is not config:
            self._options = (config, options_of(config))
        options = self._options[1]
        losses = []
        with warnings.catch_warnings():  # the trainer reads a bad loss itself and says more
            warnings.filterwarnings("ignore", "train_steps: ", RuntimeWarning)
            for rates in state.learning_rates(steps).split(max(1, MAX_ROWS // config.batch_size)):
                rows = state.draw_batches(len(rates)).to(train.targets.device)  # (S, N)
                arrays = (params, train.inputs, train.targets, rows, rates)
                losses.append(train_steps(*arrays, state=state.optimizer, **options))
        return torch.cat(losses).to(torch.float32)
