"""The mathematics of the ops in plain torch, differentiable twice.

Each module derives its formulas in its docstring. The low-level functions are the contract that
every backend implements; the function with the name of the op composes them for the transforms of
torch.func. The backend ``reference`` is `mlpkern.reference.backend`.
"""

from __future__ import annotations

from mlpkern.reference.cross_entropy import cross_entropy_backward, cross_entropy_forward
from mlpkern.reference.embedding_gather import (
    embedding_gather_backward,
    embedding_gather_forward,
)
from mlpkern.reference.embedding_linear_tanh import (
    embedding_linear_tanh_backward,
    embedding_linear_tanh_forward,
)
from mlpkern.reference.linear_tanh import linear_tanh_backward, linear_tanh_forward

__all__ = [
    "cross_entropy_backward",
    "cross_entropy_forward",
    "embedding_gather_backward",
    "embedding_gather_forward",
    "embedding_linear_tanh_backward",
    "embedding_linear_tanh_forward",
    "linear_tanh_backward",
    "linear_tanh_forward",
]
