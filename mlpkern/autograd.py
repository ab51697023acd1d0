"""The torch.autograd.Function of each op, for use in other Functions. No argument checks."""

from __future__ import annotations

from mlpkern.ops.embedding_gather import EmbeddingGather

__all__ = ["EmbeddingGather"]
