"""What a training run consists of between two chunks: all that an engine reads and changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlpkern.lm.config import TrainConfig, learning_rates, seed_for
from mlpkern.lm.data import Split
from mlpkern.lm.model import MLPLanguageModel

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """A model in training.

    model      its parameters are updated in place by the engine
    train      the training rows, on the model's device
    config     batch size and learning-rate schedule are read from here
    generator  CPU generator of the batches; drawing is all that moves it, so it is the whole
               position in the sequence of batches, the same for every engine and device
    step       steps done so far; the trainer, not the engine, counts it up
    """

    model: MLPLanguageModel
    train: Split
    config: TrainConfig
    generator: torch.Generator
    step: int = 0

    @classmethod
    def start(cls, model: MLPLanguageModel, train: Split, config: TrainConfig) -> TrainState:
        """The state before step 0, with the batch generator seeded from ``config.seed``."""
        generator = torch.Generator().manual_seed(seed_for(config.seed, "batches"))
        return cls(model, train, config, generator)

    def draw_batches(self, steps: int) -> Tensor:
        """Row numbers (steps, N) int64 on the CPU, uniform with replacement.

        One draw of S steps gives the same numbers as S draws of one step: torch's CPU generator
        fills in order. So engines may draw per step or per chunk.
        """
        shape = (steps, self.config.batch_size)
        return torch.randint(0, len(self.train), shape, generator=self.generator)

    def learning_rates(self, steps: int) -> Tensor:
        """The learning rates of the next ``steps`` steps: (steps,) float64, on the CPU."""
        return learning_rates(self.config.lr, self.step, steps)
