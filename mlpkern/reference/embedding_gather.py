r"""The mathematics of ``embedding_gather`` in plain torch.

Forward. Row n of the output is the concatenation of T rows of the table E (V, D), chosen by ids
X (N, T)::

    y[n, t*D + d] = E[X[n, t], d]

which is ``F.embedding(X, E).flatten(-2)``. Read as a product, y[n, t] = onehot(X[n, t]) E: the ids
have no derivative, and the output is linear in E.

Backward. Let g (N, T*D) be the gradient of the loss with respect to y. Each use of row v of the
table adds its own slice of g::

    dE[v, d] = sum over (n, t) with X[n, t] = v of g[n, t*D + d]

a sum by segments, in float32 for the half dtypes. The row ``padding_idx`` gets zero. The gradient
is linear in g, so differentiating it again with respect to g is the forward over again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mlpkern.reference.bounds import check_ids
from mlpkern.reference.precision import wide, without_autocast


def embedding_gather(
    input: torch.Tensor, weight: torch.Tensor, padding_idx: int = -1
) -> torch.Tensor:
    """``F.embedding(input, weight).flatten(-2)``, differentiable any number of times.

    input (..., T) ids of any integer dtype, weight (V, D); padding_idx -1 for none.
    """
    check_ids("embedding_gather", "input", input, weight.shape[0])
    padding = None if padding_idx < 0 else padding_idx
    return F.embedding(input.long(), weight, padding).flatten(-2)  # (..., T*D)


def embedding_gather_forward(input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(..., T) ids and the (V, D) table to (..., T*D)."""
    return embedding_gather(input, weight)


@without_autocast
def embedding_gather_backward(
    grad_output: torch.Tensor, input: torch.Tensor, num_embeddings: int, padding_idx: int
) -> torch.Tensor:
    """The (V, D) gradient of the table from grad_output (..., T*D); differentiable.

    T must be at least 1: without ids the width D cannot be told from grad_output.
    """
    check_ids("embedding_gather", "input", input, num_embeddings)
    count = input.shape[-1]
    width = grad_output.shape[-1] // count
    rows = grad_output.reshape(*input.shape, width)  # (..., T, D)
    # torch's name for the sum by segments; it does not use atomics, so its bits are fixed.
    total = torch.ops.aten.embedding_dense_backward(
        rows.to(wide(rows.dtype)), input.long(), num_embeddings, padding_idx, False
    )
    return total.to(grad_output.dtype)  # (V, D)
