"""A training of every engine on names: losses side by side, speed, time to a dev loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.core.providers import with_threads
from bench.core.timer import timed

if TYPE_CHECKING:  # mlpkern.lm is imported where it is used
    from mlpkern.lm import Dataset, Engine, Split, TrainConfig, TrainState

ENGINES = ("stock", "ops", "run")
SHORT_STEPS = 1_000


@dataclass(frozen=True)
class Plan:
    """What to train: the lecture's 200,000 steps, or a thousand where `short`."""

    short: bool = False
    file: Path | None = None  # words, one a line; None: the embedded names
    reach: float | None = None  # a dev loss; None: the last of stock, rounded up to a hundredth

    @property
    def pieces(self) -> int:
        return 5 if self.short else 20

    def config(self) -> TrainConfig:
        from mlpkern.lm import PRESETS

        lecture = PRESETS["lecture"]
        if not self.short:
            return lecture
        return replace(lecture, init="scaled", steps=SHORT_STEPS, lr=((0, 0.1),))

    def dataset(self, config: TrainConfig) -> Dataset:
        from mlpkern.lm import build_dataset, embedded_names, read_words

        words = read_words(self.file) if self.file else embedded_names()
        return build_dataset(words, block_size=config.block_size)


def train_all(plan: Plan, *, config: TrainConfig | None = None) -> dict[str, Any]:
    """Trains the lecture's model with every engine from the same seed, on one thread.

    A run is cut into pieces; of each the mean training loss, the dev loss after it and the seconds
    of its steps are kept (without those of the evaluation). One plain run each, one after the
    other: an impression, not a measurement like those of the cases.
    """
    from mlpkern.lm import Trainer, choose_engine
    from mlpkern.lm.model.setting import setting_text

    config = config or plan.config()
    dataset = plan.dataset(config)
    every = max(1, config.steps // plan.pieces)
    runs = {}
    with with_threads(1):
        for name in ENGINES:
            engine, why = choose_engine(name, torch.device("cpu"))
            state = Trainer.start(config, dataset, engine).state
            runs[name] = {"why": why, **_train(engine, state, dataset.splits["dev"], every)}
    end = runs["stock"]["dev_losses"][-1]
    reach = plan.reach if plan.reach is not None else math.ceil(100 * end) / 100
    for run in runs.values():
        run["seconds_to_reach"] = reached(run["dev_losses"], run["piece_seconds"], reach)
    source = plan.file.name if plan.file else "embedded names"
    return {
        "data": f"{source}, {len(dataset.splits['train'])} training rows",
        "config": f"V={len(dataset.vocab)} T={config.block_size} D={config.embedding_dim} "
        f"H={config.hidden[0]} N={config.batch_size}, {config.init} init, "
        f"lr {setting_text(config.lr)}, 1 thread",
        "steps": config.steps,
        "every": every,
        "reach": reach,
        "engines": runs,
    }


def reached(dev_losses: list[float], piece_seconds: list[float], reach: float) -> float | None:
    """Seconds of steps until a dev loss is at most `reach`; None if none is."""
    for loss, passed in zip(dev_losses, accumulate(piece_seconds), strict=True):
        if loss <= reach:
            return passed
    return None


def _train(engine: Engine, state: TrainState, dev: Split, every: int) -> dict[str, Any]:
    from mlpkern.lm import evaluate

    losses, dev_losses, piece_seconds = [], [], []
    while state.step < state.config.steps:
        steps = min(every, state.config.steps - state.step)
        seconds, chunk = timed(partial(engine.run_chunk, state, steps))
        piece_seconds.append(seconds)
        losses.append(float(chunk.double().mean()))
        dev_losses.append(evaluate(state.model, dev).loss)
    return {
        "losses": losses,
        "dev_losses": dev_losses,
        "dev_loss": dev_losses[-1],
        "piece_seconds": piece_seconds,
        "seconds": sum(piece_seconds),
    }
