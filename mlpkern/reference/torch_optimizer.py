"""torch's own optimizer for the steps of a run, wherever the run begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mlpkern.mlp.training_arguments import Rule


class TorchOptimizer:
    """``torch.optim.SGD`` or ``AdamW`` after ``step`` steps of a run.

    AdamW has two parameter groups: the embedding and the weights decay, the biases do not.

    Args:
        rule: what all models of a run share.
        leaves: the parameters, in the order of `MLPParams.tensors`. One without a gradient stays as
            it is.
        moments: first and second moments of the leaves, which the steps update; None where the
            optimizer has none.
        step: steps done before.
        foreach: as in torch.optim.
    """

    def __init__(
        self,
        rule: Rule,
        leaves: Sequence[Tensor],
        moments: Sequence[Sequence[Tensor] | None],
        step: int,
        weight_decay: float,
        foreach: bool | None = None,
    ) -> None:
        self._leaves, self._max_norm = list(leaves), rule.max_grad_norm
        first, second = moments
        how: dict[str, Any] = {"weight_decay": weight_decay, "foreach": foreach}
        if second is None:
            self._optimizer: torch.optim.Optimizer = torch.optim.SGD(
                [{"params": self._leaves}], momentum=rule.momentum, nesterov=rule.nesterov, **how
            )
            for leaf, buffer in zip(self._leaves, first or (), strict=bool(first)):
                self._optimizer.state[leaf] = {"momentum_buffer": buffer}
            return
        groups: list[dict[str, Any]] = [
            {"params": [leaf for leaf in self._leaves if leaf.dim() == 2]},
            {"params": [leaf for leaf in self._leaves if leaf.dim() == 1], "weight_decay": 0.0},
        ]
        betas = (rule.beta1, rule.beta2)
        self._optimizer = torch.optim.AdamW(groups, betas=betas, eps=rule.eps, **how)
        for leaf, mean, square in zip(self._leaves, first or (), second, strict=True):
            done = torch.tensor(step, dtype=torch.float64, device="cpu")
            self._optimizer.state[leaf] = {"step": done, "exp_avg": mean, "exp_avg_sq": square}

    def step(self, rate: float) -> None:
        """Clips the gradients that the leaves hold, updates, and sets the gradients to None."""
        if self._max_norm != math.inf:
            torch.nn.utils.clip_grad_norm_(self._leaves, self._max_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        for leaf in self._leaves:
            leaf.grad = None
