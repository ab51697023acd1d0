r"""The mathematics of ``embedding_linear_tanh`` in plain torch.

Forward. For ids X (N, T), a table E (V, D), W (H, T*D), b (H,)::

    x[n, t*D + d] = E[X[n, t], d]                                  (N, T*D)
    y[n, h] = tanh(b[h] + sum over t, d of x[n, t*D + d] W[h, t*D + d])

With W_t = W[:, t*D : (t+1)*D], the columns of W that position t meets, the sum is one of T rows of
tables that know nothing of the batch::

    F_t = E W_tᵀ   (V, H)          y[n] = tanh(b + sum over t of F_t[X[n, t]])

which is what a kernel computes when the batch has more rows than the table (the *fold*).

Backward. Let g (N, H) be the gradient of the loss with respect to y. As for ``linear_tanh``,
dz = g (1 − y²), and the chain rule through the layer and the lookup gives::

    dx = dz W       dE[v] = sum over (n, t) with X[n, t] = v of dx[n, t*D : (t+1)*D]
    dW = dzᵀ x      db = sum over n of dz[n]

Folded: dF_t[v] = sum over n with X[n, t] = v of dz[n], a sum by segments, and then

    dE = sum over t of dF_t W_t       dW_t = dF_tᵀ E

because each sum over n is one over v of the rows n that have v at position t. The half dtypes
compute in float32 and round once at the end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mlpkern.reference.bounds import check_ids
from mlpkern.reference.precision import wide, without_autocast

_OP = "embedding_linear_tanh"


@without_autocast
def embedding_linear_tanh(
    input: torch.Tensor,
    embedding: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """``tanh(F.linear(F.embedding(input, embedding).flatten(-2), weight, bias))``.

    Differentiable any number of times, by every argument but the ids.
    """
    dtype = wide(embedding.dtype)
    offset = None if bias is None else bias.to(dtype)
    z = F.linear(_embedded(input, embedding), weight.to(dtype), offset)  # (..., H)
    return torch.tanh(z).to(embedding.dtype)


def embedding_linear_tanh_forward(
    input: torch.Tensor,
    embedding: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """(..., T) ids, (V, D), (H, T*D), (H,) or None to (..., H)."""
    return embedding_linear_tanh(input, embedding, weight, bias)


@without_autocast
def embedding_linear_tanh_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    embedding: torch.Tensor,
    weight: torch.Tensor,
    output: torch.Tensor,
    need_embedding: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """The gradients of embedding, weight and bias that are needed, None for the rest.

    They can be differentiated again because ``output`` still hangs on the graph of the forward.
    """
    dtype = wide(embedding.dtype)
    y = output.to(dtype)
    dz = grad_output.to(dtype) * (1 - y * y)  # (..., H)
    count = input.shape[:-1].numel()  # spelled out, since -1 is ambiguous when H or T*D is 0
    rows = dz.reshape(count, weight.shape[0])  # (N, H)
    grad_embedding = grad_weight = grad_bias = None
    if need_embedding:
        check_ids(_OP, "input", input, embedding.shape[0])
        dx = rows @ weight.to(dtype)  # (N, T*D)
        dx = dx.reshape(*input.shape, embedding.shape[1])  # (..., T, D)
        # torch's name for the sum by segments; it does not use atomics, so its bits are fixed.
        grad_embedding = torch.ops.aten.embedding_dense_backward(
            dx, input.long(), embedding.shape[0], -1, False
        ).to(embedding.dtype)
    if need_weight:
        x = _embedded(input, embedding).reshape(count, weight.shape[1])  # (N, T*D)
        grad_weight = (rows.mT @ x).to(weight.dtype)
    if need_bias:
        grad_bias = rows.sum(0).to(weight.dtype)
    return grad_embedding, grad_weight, grad_bias


def _embedded(input: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """(..., T*D), in the dtype of the sums."""
    check_ids(_OP, "input", input, embedding.shape[0])
    return F.embedding(input.long(), embedding).flatten(-2).to(wide(embedding.dtype))
