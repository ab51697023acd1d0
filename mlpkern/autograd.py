"""The torch.autograd.Function of each op, for use in other Functions. No argument checks."""

from __future__ import annotations

from mlpkern.ops.cross_entropy import CrossEntropy
from mlpkern.ops.embedding_gather import EmbeddingGather
from mlpkern.ops.linear_tanh import LinearTanh

__all__ = ["CrossEntropy", "EmbeddingGather", "LinearTanh"]
