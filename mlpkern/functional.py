"""The ops as functions; names and argument order follow ``torch.nn.functional``."""

from __future__ import annotations

from mlpkern.ops.cross_entropy import cross_entropy
from mlpkern.ops.embedding_gather import embedding_gather
from mlpkern.ops.embedding_linear_tanh import embedding_linear_tanh
from mlpkern.ops.evaluate import evaluate
from mlpkern.ops.linear_tanh import linear_tanh
from mlpkern.ops.train_steps import train_steps

__all__ = [
    "cross_entropy",
    "embedding_gather",
    "embedding_linear_tanh",
    "evaluate",
    "linear_tanh",
    "train_steps",
]
