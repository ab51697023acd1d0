"""Drop-in layers: the same parameters, initialization and state_dict as the torch layers.

Each is an instance of the torch layer whose parameters it has, but ``LinearTanh`` and
``EmbeddingGather`` compute what two layers do. A tool that treats every ``nn.Linear`` alike ignores
the tanh: a wrapper that computes ``base(x) + correction(x)`` adds after it, and
``torch.nn.utils.fusion`` folds a BatchNorm into the layer as if there were none. Run such tools
before `mlpkern.fuse` or after `mlpkern.unfuse`. Tools that go by the exact type, such as
``quantize_dynamic``, leave these layers as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlpkern.functional import cross_entropy, embedding_gather, linear_tanh
from mlpkern.tracing.fused_steps import computes

__all__ = ["CrossEntropyLoss", "EmbeddingGather", "LinearTanh"]


class EmbeddingGather(torch.nn.Embedding):
    """The embedded contexts, side by side: (..., T) ids to (..., T*embedding_dim).

    Equals ``nn.Sequential(nn.Embedding(...), nn.Flatten(-2))`` and takes the arguments of
    ``nn.Embedding``, except that max_norm, scale_grad_by_freq and sparse must keep their defaults
    (ValueError): they would change the weight or its gradient.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        **kwargs: Any,
    ) -> None:
        changes = {
            "max_norm": max_norm is not None,
            "scale_grad_by_freq": scale_grad_by_freq,
            "sparse": sparse,
        }
        for name, used in changes.items():
            if used:
                raise ValueError(f"EmbeddingGather: {name} is not supported, leave its default")
        super().__init__(num_embeddings, embedding_dim, padding_idx, norm_type=norm_type, **kwargs)

    @computes("embedding", "join")
    def forward(self, input: Tensor) -> Tensor:
        return embedding_gather(input, self.weight, padding_idx=self.padding_idx)


class EmbeddingFlatten(EmbeddingGather):
    """``nn.Embedding`` followed by ``nn.Flatten(1)``, which is a gather for 2-D ids only.

    ``mlpkern.fuse`` puts it in their place.
    """

    @computes("embedding", "join")
    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 2:
            return super().forward(input)
        ids = input.unsqueeze(-1) if input.dim() == 1 else input
        return embedding_gather(ids, self.weight, padding_idx=self.padding_idx).flatten(1)


class LinearTanh(torch.nn.Linear):
    """tanh of a linear layer: (..., in_features) to (..., out_features).

    Equals ``nn.Sequential(nn.Linear(...), nn.Tanh())`` and takes the arguments of ``nn.Linear``.
    It is an ``nn.Linear`` by its parameters, not by its output: see the top of this module.
    """

    @computes("linear", "tanh")
    def forward(self, input: Tensor) -> Tensor:
        return linear_tanh(input, self.weight, self.bias)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """``nn.CrossEntropyLoss`` on the fused op; targets may also be uint8, int16 or int32."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )
