"""What a training run consists of between two chunks: all that an engine reads and changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import TrainConfig, seed_for
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.model.schedule import learning_rates
from mlpkern.lm.words.data import Split
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.mlp.params import MLPParams


@dataclass
class TrainState:
    """A model in training.

    Attributes:
        model: the engine updates its parameters in place
        train: the training rows, on the model's device
        config: batch size, learning rates and the options of a step
        generator: CPU generator of the batches. Nothing but drawing moves it, so its state is the
            position in the sequence of batches, the same for every engine and device
    """

    model: MLPLanguageModel
    train: Split
    config: TrainConfig
    generator: torch.Generator
    _params: MLPParams | None = field(init=False, repr=False, default=None)

    @classmethod
    def start(cls, model: MLPLanguageModel, train: Split, config: TrainConfig) -> TrainState:
        """The state before step 0, with the batch generator seeded from ``config.seed``.

        ConfigError if the contexts of ``train`` are not of ``config.block_size``.
        """
        if (context := train.inputs.shape[1]) != config.block_size:
            raise ConfigError(
                f"block_size {config.block_size}: the contexts of the dataset are of {context}"
            )
        generator = torch.Generator().manual_seed(seed_for(config.seed, "batches"))
        return cls(model, train, config, generator)

    @property
    def params(self) -> MLPParams:
        """The model's own parameters; found again once the model has other ones."""
        if self._params is None or _ids(self._params.tensors()) != _ids(self.model.parameters()):
            self._params = MLPParams.from_module(self.model)
        return self._params

    @cached_property
    def optimizer(self) -> OptimizerState:
        """The steps done and the moments, with the model's dtype and device; engines update them.

        Made at its first use, before step 0.
        """
        return OptimizerState.zeros(self.params, self.config.optimizer, self.config.momentum)

    @property
    def step(self) -> int:
        """Steps done so far, as ``optimizer`` counts them."""
        return self.optimizer.step

    @step.setter
    def step(self, value: int) -> None:
        self.optimizer.step = value

    def draw_batches(self, steps: int) -> Tensor:
        """Row numbers (steps, N) int64 on the CPU, uniform with replacement.

        One draw of S steps gives the same numbers as S draws of one step: torch's CPU generator
        fills in order. So an engine may draw per step or per chunk.
        """
        rows, shape = self.train.targets.shape[0], (steps, self.config.batch_size)
        return torch.randint(0, rows, shape, generator=self.generator, device="cpu")

    def learning_rates(self, steps: int) -> Tensor:
        """The learning rates of the next ``steps`` steps: (steps,) float64, on the CPU."""
        of = self.config
        return learning_rates(of.lr, of.schedule, of.warmup, of.steps, self.optimizer.step, steps)


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


def _ids(tensors: Iterable[Tensor]) -> list[int]:
    return list(map(id, tensors))
