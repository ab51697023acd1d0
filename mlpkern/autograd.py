"""The torch.autograd.Function of each op, below the functional's checks of its arguments.

``X.apply(...)`` is for eager code; within torch.compile call the functional, which a tracer sees as
one op.
"""

from __future__ import annotations

from mlpkern.ops.cross_entropy_function import CrossEntropy
from mlpkern.ops.embedding_gather import EmbeddingGather
from mlpkern.ops.embedding_linear_tanh import EmbeddingLinearTanh
from mlpkern.ops.linear_tanh import LinearTanh

__all__ = ["CrossEntropy", "EmbeddingGather", "EmbeddingLinearTanh", "LinearTanh"]
