"""The arguments of a backend's ``train_steps``, as one record.

Sizes: M models, S steps, N rows of a minibatch, T ids a row.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

SGD, ADAMW = 0, 1  # places in OPTIMIZERS


class Rule(NamedTuple):
    """The options of a step that all models share.

    Attributes:
        optimizer: `SGD` or `ADAMW`.
        beta1: decay rate of AdamW's first moment. beta2: of the second.
        max_grad_norm: inf for no clipping.
    """

    optimizer: int
    momentum: float
    nesterov: bool
    beta1: float
    beta2: float
    eps: float
    max_grad_norm: float
    label_smoothing: float


class TrainingArguments(NamedTuple):
    """What ``train_steps(arguments)`` of a backend gets: checked, apart from ids and row numbers.

    A backend updates ``parameters``, ``first``, ``second`` and ``stopped`` in place and returns
    the losses (M, S).

    Attributes:
        parameters: the tensors of M models in the order of `MLPParams.tensors`, each (M, …).
        frozen: of each of ``parameters``, whether it and its moments are only read.
        first: first moments, like ``parameters``; None where the optimizer has none.
        second: second moments likewise.
        inputs: (rows, T) ids, the training set of all models.
        targets: (rows,) ids.
        batches: (M, S, N) row numbers; stride 0 along M if the models share them.
        rates: (M, S) float64 learning rates; stride 0 along M if the models share them.
        stopped: (M,) int64: the step at which a model was stopped, or -1.
        step: steps done before.
        weight_decay: (M,) float64, as are ``input_dropout`` and ``hidden_dropout``.
        seeds: (M,) int64, of the dropout masks; so are ``streams``.
    """

    parameters: list[Tensor]
    frozen: list[bool]
    first: list[Tensor] | None
    second: list[Tensor] | None
    inputs: Tensor
    targets: Tensor
    batches: Tensor
    rates: Tensor
    stopped: Tensor
    step: int
    rule: Rule
    weight_decay: Tensor
    input_dropout: Tensor
    hidden_dropout: Tensor
    seeds: Tensor
    streams: Tensor

    def steps(self, begin: int, end: int) -> TrainingArguments:
        """The arguments of the steps [begin, end) of these, once those before are done."""
        return self._replace(
            batches=self.batches[:, begin:end],
            rates=self.rates[:, begin:end],
            step=self.step + begin,
        )
