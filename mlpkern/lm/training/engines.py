"""The engines: ways of carrying out the same SGD steps, from the lecture's code to a single call.

An engine turns a `TrainState` into the state some steps later. For one seed all engines draw the
same batches and dropout masks and apply the same updates, so their losses agree to rounding. All
leave a parameter alone whose requires_grad is False when a chunk begins. To add one, write a class
with the members of `Engine` and put it into `ENGINES`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mlpkern.lm.arguments import as_device, described
from mlpkern.lm.errors import ConfigError, nearest
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.training.ops import OpsEngine
from mlpkern.lm.training.run import RunEngine
from mlpkern.lm.training.stock import StockEngine
from mlpkern.registry import refusal


class Engine(Protocol):
    """One way of training; an instance may cache, but all of a run's state is in `TrainState`."""

    name: str
    kernels: str  # the forward of the model that belongs to it, for evaluation

    @staticmethod
    def unavailable(device: torch.device) -> str | None:
        """Why this engine cannot run well on ``device``, or None."""

    def run_chunk(self, state: TrainState, steps: int) -> Tensor:
        """Takes ``steps`` steps: moves ``state.generator``, the parameters, and ``state.optimizer``
        with its count of steps.

        Returns the losses (steps,) before each update, float32, on the model's device.
        """


# fastest first: the order in which "auto" tries them
ENGINES: dict[str, type[Engine]] = {"run": RunEngine, "ops": OpsEngine, "stock": StockEngine}


def choose_engine(name: str, device: torch.device | str = "cpu") -> tuple[Engine, str]:
    """The engine called ``name`` and why; "auto" takes the first of `ENGINES` that applies.

    A named engine that cannot run well still runs (the ops fall back to the reference backend), and
    the reason says so. ConfigError for an unknown name or device, and for a backend, named by
    `mlpkern.use_backend` or in the environment, that cannot run the ops on ``device``.
    """
    device = as_device(device)
    if name != "stock" and (refused := refusal("embedding_gather", device.type)):
        raise ConfigError(refused)
    if name == "auto":
        skipped: list[str] = []
        for engine in ENGINES.values():
            if (reason := engine.unavailable(device)) is None:
                why = f"the fastest that applies on {device.type}"
                return engine(), "; ".join([why, *skipped])
            skipped.append(f"not {engine.name}: {reason}")
        raise ConfigError(f"no engine runs on {device}: {'; '.join(skipped)}")
    if name not in ENGINES:
        raise ConfigError(
            f"engine must be auto, {', '.join(ENGINES)}, got {name!r}{nearest(name, ENGINES)}"
        )
    engine = ENGINES[name]
    reason = engine.unavailable(device)
    return engine(), f"as asked{f'; slow: {reason}' if reason else ''}"


def as_engine(engine: Engine | str, device: torch.device) -> Engine:
    """``engine``, or the one of that name; TypeError for anything else, also for a class."""
    if isinstance(engine, str):
        return choose_engine(engine, device)[0]
    if isinstance(engine, type) or not hasattr(engine, "run_chunk"):
        names = ", ".join(ENGINES)
        raise TypeError(
            f"engine must be auto, {names}, or an instance such as RunEngine(), got "
            f"{described(engine)}"
        )
    return engine
