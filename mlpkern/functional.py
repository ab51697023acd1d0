"""The ops as functions; names and argument order follow ``torch.nn.functional``."""

from __future__ import annotations

from mlpkern.ops.embedding_gather import embedding_gather

__all__ = ["embedding_gather"]
