r"""The mathematics of ``linear_tanh`` in plain torch.

Forward. For rows x (N, K), W (H, K), b (H,)::

    z[n, h] = sum over k of x[n, k] W[h, k] + b[h]
    y[n, h] = tanh(z[n, h])

Backward. Let g (N, H) be the gradient of the loss with respect to y. From tanh = sinh / cosh,

    tanh'(z) = (cosh² − sinh²) / cosh² = 1 − tanh(z)² = 1 − y²

so y is all the forward has to keep, and z is never stored. With dz[n, h] = g[n, h] (1 − y[n, h]²),
the chain rule through z = x Wᵀ + b gives::

    dx = dz W       (N, K)
    dW = dzᵀ x      (H, K)
    db = sum over n of dz[n]       (H,)

The half dtypes compute in float32 and round once at the end.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mlpkern.reference.precision import wide, without_autocast


@without_autocast
def linear_tanh(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """``torch.tanh(F.linear(input, weight, bias))``, differentiable any number of times."""
    dtype = wide(input.dtype)
    offset = None if bias is None else bias.to(dtype)
    z = F.linear(input.to(dtype), weight.to(dtype), offset)  # (..., H)
    return torch.tanh(z).to(input.dtype)


def linear_tanh_forward(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """(..., K), (H, K), (H,) or None to (..., H)."""
    return linear_tanh(input, weight, bias)


@without_autocast
def linear_tanh_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    output: torch.Tensor,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """The gradients of input, weight and bias that are needed, None for the rest; differentiable.

    It can be differentiated again because ``output`` still hangs on the graph of the forward.
    """
    dtype = wide(input.dtype)
    y = output.to(dtype)
    dz = grad_output.to(dtype) * (1 - y * y)  # (..., H)
    count = input.shape[:-1].numel()  # spelled out, since -1 is ambiguous when H or K is 0
    rows = dz.reshape(count, weight.shape[0])  # (N, H)
    grad_input = grad_weight = grad_bias = None
    if need_input:
        grad_input = (dz @ weight.to(dtype)).to(input.dtype)
    if need_weight:
        x = input.to(dtype).reshape(count, weight.shape[1])  # (N, K)
        grad_weight = (rows.mT @ x).to(weight.dtype)
    if need_bias:
        grad_bias = rows.sum(0).to(weight.dtype)
    return grad_input, grad_weight, grad_bias
