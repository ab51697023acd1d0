"""The logits and the loss of an MLP by the fused ops, from its parameters as a list of tensors.

The ops run without the checks of their arguments, which matter when a step takes 130 us.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlpkern.ops.cross_entropy import CrossEntropy
from mlpkern.ops.embedding_gather import EmbeddingGather
from mlpkern.ops.linear_tanh import LinearTanh
from mlpkern.reference.mlp import Dropout, no_dropout

_gather, _linear_tanh, _cross_entropy = (
    EmbeddingGather.direct,
    LinearTanh.direct,
    CrossEntropy.direct,
)
_NO_PADDING = -1
_IGNORE_INDEX, _MEAN = -100, 1  # no target equals the first


def transposed(parameters: Sequence[Tensor]) -> list[Tensor]:
    """``parameters`` as `mlp_logits` takes them: a view of the output weight as (H, C).

    A step that makes this view itself, and its backward, takes 15 us longer.
    """
    return [*parameters[:-2], parameters[-2].t(), parameters[-1]]


def mlp_logits(parameters: Sequence[Tensor], ids: Tensor, dropout: Dropout = no_dropout) -> Tensor:
    """What `mlpkern.reference.mlp.logits` returns, of `transposed` parameters.

    The ids may have any integer dtype.
    """
    embedding, *hidden, weight_out, bias_out = parameters
    x = dropout(0, _gather(ids, embedding, _NO_PADDING))  # (N, T*D)
    for layer, (weight, bias) in enumerate(zip(hidden[::2], hidden[1::2], strict=True), 1):
        x = dropout(layer, _linear_tanh(x, weight, bias))  # (N, H)
    return torch.addmm(bias_out, x, weight_out)  # (N, C)


def mlp_loss(
    parameters: Sequence[Tensor],
    ids: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    dropout: Dropout = no_dropout,
) -> Tensor:
    """The mean cross-entropy () of `mlp_logits` against ``targets`` (N,)."""
    logits = mlp_logits(parameters, ids, dropout)
    return _cross_entropy(logits, targets, None, _IGNORE_INDEX, _MEAN, label_smoothing)
