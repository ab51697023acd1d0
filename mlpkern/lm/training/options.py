"""What the settings of a run mean for a step: the options of `mlpkern.train_steps`, and the same
step by step for engines that use autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from mlpkern.lm.model.config import SHAPE, TrainConfig, seed_for, settings_of
from mlpkern.lm.model.state import TrainState
from mlpkern.mlp.optimizers import OPTIMIZERS
from mlpkern.mlp.training_arguments import Rule
from mlpkern.reference.mlp import Dropout, dropout_of_step
from mlpkern.reference.torch_optimizer import TorchOptimizer


def common_options(config: TrainConfig) -> dict[str, Any]:
    """The arguments of `mlpkern.train_steps` that one call has only once, whatever its models."""
    return {name: getattr(config, name) for name in settings_of("optimizer") if name in SHAPE}


def own_options(configs: Sequence[TrainConfig]) -> dict[str, Any]:
    """The arguments that each of M models has for itself, (M,) each."""
    names = [name for name in settings_of("optimizer") if name not in SHAPE]
    options = {name: [float(getattr(c, name)) for c in configs] for name in names}
    return {**options, "seed": [seed_for(c.seed, "dropout") for c in configs]}


def options_of(config: TrainConfig) -> dict[str, Any]:
    """The options of `mlpkern.train_steps` for a single model."""
    own = {name: values[0] for name, values in own_options([config]).items()}
    return {**common_options(config), **own}


def rule_of(config: TrainConfig) -> Rule:
    """The options of a step as a backend gets them."""
    bound = math.inf if config.max_grad_norm is None else float(config.max_grad_norm)
    kind, smoothing = OPTIMIZERS.index(config.optimizer), float(config.label_smoothing)
    return Rule(kind, float(config.momentum), False, 0.9, 0.999, 1e-8, bound, smoothing)


def dropout_of(config: TrainConfig) -> Callable[[int], Dropout]:
    """The dropout of a step, by its number; the masks are those of `mlpkern.train_steps`."""
    probabilities = (config.input_dropout, config.hidden_dropout)
    return partial(dropout_of_step, probabilities, seed_for(config.seed, "dropout"))


def torch_optimizer(
    state: TrainState,
    leaves: Sequence[Tensor],
    arranged: Callable[[list[Tensor]], list[Tensor]] = list,
    foreach: bool | None = None,
) -> TorchOptimizer:
    """torch's optimizer of a run where it stands; its steps update the moments of ``state``.

    ``leaves``: the parameters, ``arranged`` from the list of `MLPParams.tensors`.
    """
    config, own = state.config, state.optimizer
    both = (own.first, own.second)
    moments = [None if part is None else arranged(part.tensors()) for part in both]
    decay = float(config.weight_decay)
    return TorchOptimizer(rule_of(config), leaves, moments, state.step, decay, foreach)
