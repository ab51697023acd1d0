"""A short real training run of both engines on names: do they learn the same, and how fast?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.providers import Unavailable, with_threads
from bench.timer import seconds_of

if TYPE_CHECKING:  # mlpkern.lm is imported where it is used
    from mlpkern.lm.engines import Engine
    from mlpkern.lm.state import TrainState

STEPS = 2_000
EVERY = 400
ENGINES = ("stock", "ops")


def train_both(threads: int, steps: int = STEPS, every: int = EVERY) -> dict[str, Any]:
    """Trains the lecture's shape (N=32) with both engines from the same seed.

    Returns the mean training loss of every `every` steps, the dev loss and the seconds of each
    engine. The seconds are one plain run each, first to last step: an impression, not a measurement
    like those of the cases.
    """
    try:
        from mlpkern.lm.config import PRESETS
        from mlpkern.lm.data import build_dataset, embedded_names
        from mlpkern.lm.engines import choose_engine
        from mlpkern.lm.evaluate import evaluate
        from mlpkern.lm.train import Trainer
    except ImportError as error:
        raise Unavailable(f"mlpkern.lm cannot be imported: {error}") from error
    config = replace(PRESETS["lecture"], init="scaled", steps=steps, lr=((0, 0.1),))
    dataset = build_dataset(embedded_names(), block_size=config.block_size, source="embedded names")
    runs = {}
    with with_threads(threads):
        for name in ENGINES:
            engine, why = choose_engine(name, torch.device("cpu"))
            state = Trainer.start(config, dataset, engine).state
            losses, seconds = _train(engine, state, steps, every)
            dev = evaluate(state.model, dataset.splits["dev"])
            runs[name] = {"why": why, "losses": losses, "dev_loss": dev.loss, "seconds": seconds}
    return {
        "data": f"embedded names, {len(dataset.splits['train'])} training rows",
        "steps": steps,
        "every": every,
        "engines": runs,
    }


def _train(engine: Engine, state: TrainState, steps: int, every: int) -> tuple[list[float], float]:
    """The mean loss of every `every` steps, and the seconds of all steps."""
    chunks: list[Tensor] = []

    def run_chunk() -> None:
        chunks.append(engine.run_chunk(state, min(every, steps - state.step)))

    seconds = 0.0
    while state.step < steps:
        seconds += seconds_of(run_chunk, 1)
        state.step += len(chunks[-1])
    return [float(chunk.double().mean()) for chunk in chunks], seconds
