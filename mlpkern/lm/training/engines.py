"""The engines: ways of carrying out the same SGD steps, from the lecture's code to a single call.

An engine turns a `TrainState` into the state some steps later. For one seed all engines draw the
same batches and dropout masks and apply the same updates, so their losses agree to rounding. All
leave a parameter alone whose requires_grad is False when a chunk begins. To add one, write a class
with the members of `Engine` and put it into `ENGINES`.
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

import mlpkern
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.training.ops import FusedOptionsStep, FusedStep, GraphedSteps
from mlpkern.lm.training.options import common_options, own_options
from mlpkern.lm.training.stock import StockStep
from mlpkern.lm.words.data import Split
from mlpkern.registry import has_op, refusal, select, status

__all__ = ["ENGINES", "Engine", "OpsEngine", "RunEngine", "StockEngine", "choose_engine"]

# What engines that prepare the batches of a whole chunk hold at once: 64 MB of int64 numbers.
MAX_GATHERED_IDS = 8_000_000
MAX_ROWS = 8_000_000

# Steps whose batches a GPU holds for the replays of one CUDA graph.
GRAPHED_STEPS = 1024


class Engine(Protocol):
    """One way of training; an instance may cache, but all of a run's state is in `TrainState`."""

    name: str
    kernels: str  # the forward of the model that belongs to it, for evaluation

    @staticmethod
    def unavailable(device: torch.device) -> str | None:
        """Why this engine cannot run well on ``device``, or None."""

    @staticmethod
    def lacks(device: torch.device, config: TrainConfig) -> str | None:
        """What ``config`` asks for that this engine cannot do on ``device``, or None."""

    def run_chunk(self, state: TrainState, steps: int) -> Tensor:
        """Takes ``steps`` steps: moves ``state.generator``, the parameters, and ``state.optimizer``
        with its count of steps.

        Returns the losses (steps,) before each update, float32, on the model's device.
        """


class StockEngine:
    """The training loop of the lecture in plain torch: the yardstick, free of any of our ops."""

    name = "stock"
    kernels = "stock"

    def __init__(self) -> None:
        self._rows: tuple[Split, Tensor, Tensor] | None = None

    @staticmethod
    def unavailable(device: torch.device) -> str | None:
        return None

    @staticmethod
    def lacks(device: torch.device, config: TrainConfig) -> str | None:
        return None

    def run_chunk(self, state: TrainState, steps: int) -> Tensor:
        if state.config.beyond_plain_sgd():
            return self._run_options(state, steps)
        model = state.model
        embedding = model.embedding.weight
        hidden = model.hidden_parameters()
        output = model.output
        parameters = [p for p in model.parameters() if p.requires_grad]
        inputs, targets = self._int64_rows(state.train)
        losses = []
        for lr in state.learning_rates(steps).tolist():
            ix = state.draw_batches(1)[0].to(targets.device)  # (N,)
            # forward
            x = F.embedding(inputs[ix], embedding)  # (N, T, D)
            x = x.view(x.shape[0], -1)  # (N, T*D)
            for weight, bias in hidden:
                x = torch.tanh(F.linear(x, weight, bias))  # (N, H)
            logits = F.linear(x, output.weight, output.bias)  # (N, V)
            loss = F.cross_entropy(logits, targets[ix])
            # backward
            for p in parameters:
                p.grad = None
            if parameters:
                loss.backward()
            # update
            for p in parameters:
                p.data += -lr * p.grad
            losses.append(loss.detach())
            state.step += 1
        for p in parameters:
            p.grad = None
        return torch.stack(losses)

    def _run_options(self, state: TrainState, steps: int) -> Tensor:
        """The same with the options of `StockStep`."""
        inputs, targets = self._int64_rows(state.train)
        step = StockStep(state)
        losses = []
        for lr in state.learning_rates(steps).tolist():
            ix = state.draw_batches(1)[0].to(targets.device)  # (N,)
            losses.append(step(inputs[ix], targets[ix], state.step, lr))
            state.step += 1
        return torch.stack(losses)

    def _int64_rows(self, train: Split) -> tuple[Tensor, Tensor]:
        """The training rows as the lecture keeps them, converted once a run."""
        if self._rows is None or self._rows[0] is not train:
            self._rows = (train, train.inputs.long(), train.targets.long())
        return self._rows[1:]


class OpsEngine:
    """The three fused ops through autograd, and nothing per step that can be done per chunk.

    On a GPU a step is a CUDA graph, see `GraphedSteps`.
    """

    name = "ops"
    kernels = "fused"

    @staticmethod
    def unavailable(device: torch.device) -> str | None:
        kinds = ("cpu",) if device.type == "cpu" else ("cuda", "triton")
        if any(status(kind).available for kind in kinds):
            return None
        return "; ".join(f"backend {kind}: {status(kind).reason}" for kind in kinds)

    @staticmethod
    def lacks(device: torch.device, config: TrainConfig) -> str | None:
        options = config.beyond_plain_sgd()
        if device.type != "cuda" or not options:
            return None
        return f"on cuda its step is plain SGD, without {', '.join(options)}"

    def __init__(self) -> None:
        self._graph: GraphedSteps | None = None

    def run_chunk(self, state: TrainState, steps: int) -> Tensor:
        if reason := self.lacks(state.train.targets.device, state.config):
            raise ConfigError(f"engine {self.name}: {reason}")
        if state.train.targets.is_cuda:
            run, piece = self._run_graphed, GRAPHED_STEPS
        else:
            per_step = state.config.batch_size * state.train.inputs.shape[1]
            run, piece = self._run_gathered, max(1, MAX_GATHERED_IDS // per_step)
        losses = []
        for part in state.learning_rates(steps).split(piece):
            losses.append(run(state, part))
            state.step += len(part)
        return torch.cat(losses)

    def _run_gathered(self, state: TrainState, rates: Tensor) -> Tensor:
        train = state.train
        plain = not state.config.beyond_plain_sgd()
        step = FusedStep(state.model) if plain else FusedOptionsStep(state, state.step)
        rows = state.draw_batches(len(rates)).to(train.targets.device)  # (S, N)
        batches = zip(train.inputs[rows].unbind(), train.targets[rows].unbind(), strict=True)
        pairs = zip(batches, rates.tolist(), strict=True)
        return torch.stack([step.take(ids, targets, lr) for (ids, targets), lr in pairs])

    def _run_graphed(self, state: TrainState, rates: Tensor) -> Tensor:
        run = (state.model, state.train, state.config.batch_size)
        if self._graph is None or not self._graph.serves(*run):
            self._graph = GraphedSteps(*run, capacity=GRAPHED_STEPS)
        return self._graph.run(state.draw_batches(len(rates)), rates)


class RunEngine:
    """A chunk in one call: `mlpkern.train_steps` on the model's own parameters."""

    name = "run"
    kernels = "fused"

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

    @staticmethod
    def lacks(device: torch.device, config: TrainConfig) -> str | None:
        return None

    def run_chunk(self, state: TrainState, steps: int) -> Tensor:
        train, params = state.train, state.params
        options = {}
        if state.config.beyond_plain_sgd():
            options = {**common_options(state.config), **own_options([state.config])}
        pieces = state.learning_rates(steps).split(max(1, MAX_ROWS // state.config.batch_size))
        losses = []
        with warnings.catch_warnings():  # the trainer reads a bad loss itself and says more
            warnings.filterwarnings("ignore", "train_steps: ", RuntimeWarning)
            for rates in pieces:
                rows = state.draw_batches(len(rates)).to(train.targets.device)  # (S, N)
                arrays = (params, train.inputs, train.targets, rows, rates)
                losses.append(mlpkern.train_steps(*arrays, state=state.optimizer, **options))
        return torch.cat(losses).to(torch.float32)


# fastest first: the order in which "auto" tries them
ENGINES: dict[str, type[Engine]] = {"run": RunEngine, "ops": OpsEngine, "stock": StockEngine}


def choose_engine(
    name: str, device: torch.device, config: TrainConfig | None = None
) -> tuple[Engine, str]:
    """The engine called ``name`` and why; "auto" takes the first of `ENGINES` that applies.

    A named engine that cannot run well still runs (the ops fall back to the reference backend), and
    the reason says so. ConfigError for an unknown name, for one that cannot do what ``config`` asks
    for, and for a backend, named by `mlpkern.use_backend` or in the environment, that cannot run
    the ops on ``device``.
    """
    if name != "stock" and (refused := refusal("embedding_gather", device.type)):
        raise ConfigError(refused)

    def lacking(engine: type[Engine]) -> str | None:
        return None if config is None else engine.lacks(device, config)

    if name == "auto":
        skipped: list[str] = []
        for engine in ENGINES.values():
            if (reason := engine.unavailable(device) or lacking(engine)) is None:
                why = f"the fastest that applies on {device.type}"
                return engine(), "; ".join([why, *skipped])
            skipped.append(f"not {engine.name}: {reason}")
        raise ConfigError(f"no engine runs on {device}: {'; '.join(skipped)}")
    if name not in ENGINES:
        raise ConfigError(f"engine must be auto, {', '.join(ENGINES)}, got {name!r}")
    engine = ENGINES[name]
    if reason := lacking(engine):
        raise ConfigError(f"engine {name}: {reason}; another one can")
    reason = engine.unavailable(device)
    return engine(), f"as asked{f'; slow: {reason}' if reason else ''}"
