"""What the settings of a run mean for a step: the arguments of `mlpkern.train_steps`, and the same
step by step for engines that use autograd.

Dropout draws the masks of `mlpkern.reference.philox.dropout_mask`, whose seed is
``seed_for(config.seed, "dropout")``; a mask depends on that seed, the step and the layer alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlpkern.lm.model.config import SHAPE, TrainConfig, seed_for, settings_of
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.reference.philox import dropout_mask

__all__ = ["DropoutMasks", "TorchOptimizer", "common_options", "moments_of", "own_options"]


def common_options(config: TrainConfig) -> dict[str, Any]:
    """The arguments of `mlpkern.train_steps` that one call has only once, whatever its models."""
    return {name: getattr(config, name) for name in settings_of("optimizer") if name in SHAPE}


def own_options(configs: Sequence[TrainConfig]) -> dict[str, Any]:
    """The arguments that each of M models has for itself, (M,) each."""
    names = [name for name in settings_of("optimizer") if name not in SHAPE]
    options = {name: [float(getattr(c, name)) for c in configs] for name in names}
    return {**options, "seed": [seed_for(c.seed, "dropout") for c in configs]}


class DropoutMasks:
    """The factors of a model's layers in a step; to call with the step and the layer's input.

    ``masks(step, layer, x)`` is ``x`` (N, units) times its mask: layer 0 is the embedded input,
    layer l the output of hidden layer l.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._p = config.input_dropout, config.hidden_dropout
        self._seed = seed_for(config.seed, "dropout")

    def __call__(self, step: int, layer: int, x: Tensor) -> Tensor:
        if not (p := self._p[layer > 0]):
            return x
        place = {"seed": self._seed, "step": step, "layer": layer}
        return x * dropout_mask(p, *x.shape, **place, dtype=x.dtype, device=x.device)


class TorchOptimizer:
    """torch's optimizer after ``step`` steps of a run, updating the momenta it is given.

    Args:
        leaves: the parameters in the order of `MLPParams.tensors`. A frozen one, which has no
            gradient, stays as it is.
        moments: mean and mean squared gradients, in that order and shaped like the leaves.
        kind: "" or "foreach": how torch carries it out.
    """

    def __init__(
        self,
        config: TrainConfig,
        leaves: Sequence[Tensor],
        moments: Sequence[Sequence[Tensor] | None],
        step: int,
        kind: str = "",
    ) -> None:
        self._leaves = list(leaves)
        self._max_norm = config.max_grad_norm
        first, second = moments
        how: dict[str, Any] = {kind: True} if kind else {}
        decay = config.weight_decay
        if config.optimizer == "sgd":
            self._optimizer: torch.optim.Optimizer = torch.optim.SGD(
                self._leaves, momentum=config.momentum, weight_decay=decay, **how
            )
            for leaf, buffer in zip(self._leaves, first or (), strict=bool(first)):
                self._optimizer.state[leaf] = {"momentum_buffer": buffer}
            return
        groups = [
            {"params": [leaf for leaf in self._leaves if leaf.dim() == 2], "weight_decay": decay},
            {"params": [leaf for leaf in self._leaves if leaf.dim() == 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, **how)
        for leaf, mean, square in zip(self._leaves, first or (), second or (), strict=True):
            done = torch.tensor(step, dtype=torch.float64, device="cpu")
            self._optimizer.state[leaf] = {"step": done, "exp_avg": mean, "exp_avg_sq": square}

    def step(self, lr: float) -> None:
        """Clips the gradients that the leaves hold, updates, and lets the gradients go."""
        if self._max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._leaves, self._max_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        for leaf in self._leaves:
            leaf.grad = None


def moments_of(state: OptimizerState) -> tuple[list[Tensor] | None, list[Tensor] | None]:
    """The momenta in the order of `MLPParams.tensors`, as far as there are any."""
    first, second = (None if p is None else p.tensors() for p in (state.first, state.second))
    return first, second
