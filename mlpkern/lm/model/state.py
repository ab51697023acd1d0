"""What a training run consists of between two chunks: all that an engine reads and changes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlpkern.lm.model.config import TrainConfig, seed_for
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.words.data import Split
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.mlp.params import MLPParams

__all__ = ["TrainState", "initial_model"]


@dataclass
class TrainState:
    """A model in training.

    model      its parameters are updated in place by the engine
    train      the training rows, on the model's device
    config     batch size, learning rates and the options of a step are read from here
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
        return torch.randint(0, len(self.train), shape, generator=self.generator, device="cpu")

    def learning_rates(self, steps: int) -> Tensor:
        """The learning rates of the next ``steps`` steps: (steps,) float64, on the CPU."""
        return self.config.learning_rates(self.step, steps)

    @cached_property
    def optimizer(self) -> OptimizerState:
        """The momenta, of the dtype and on the device of the model; every engine updates them.

        Made at the first use, as zeros. Its count of steps is set from ``step`` by who needs it.
        """
        params = MLPParams.from_module(self.model)
        return OptimizerState.zeros(params, self.config.optimizer, self.config.momentum)


def initial_model(
    config: TrainConfig, vocab_size: int, *, kernels: str = "fused"
) -> MLPLanguageModel:
    """The model that a training of ``config`` starts with, on the CPU."""
    return MLPLanguageModel(
        vocab_size,
        config.block_size,
        config.embedding_dim,
        config.hidden,
        kernels=kernels,
        init=config.init,
        seed=seed_for(config.seed, "init"),
    )
