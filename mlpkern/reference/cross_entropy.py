r"""The mathematics of ``cross_entropy`` in plain torch.

Forward. For logits x (N, V) let m[n] = max over c of x[n, c] and

    s[n] = log(sum over c of exp(x[n, c] − m[n])),    logp[n, c] = (x[n, c] − m[n]) − s[n]

The two parts of the log-sum-exp stay apart: added up, a large common offset m would swallow the
digits of s, and the backward exp(x − (m + s)) with them.

Class ids t[n], class weights w (ones if absent), smoothing e, C = V classes. A row with
t[n] = ignore_index gives 0, any other

    row[n] = (1 − e) w[t] (−logp[n, t]) + (e / C) · sum over c of w[c] (−logp[n, c])
    mean = (sum over n of row[n]) / (sum over the counted n of w[t[n]])

Class probabilities q[n, c], smoothed to q' = (1 − e) q + e / C::

    row[n] = sum over c of w[c] q'[n, c] (−logp[n, c]),    mean = (sum over n of row[n]) / N

Backward. Both rows have the form  row[n] = sum over c of a[n, c] (−logp[n, c])  with

    ids:  a[n, c] = (1 − e) w[t] [c = t] + (e / C) w[c]      probabilities:  a[n, c] = w[c] q'[n, c]

With p = exp(logp) and the derivative of logp[n, c] by x[n, k], which is [c = k] − p[n, k],

    d row[n] / d x[n, k] = p[n, k] · (sum over c of a[n, c]) − a[n, k]

times the gradient of the row: g[n] for no reduction, g for the sum, g / denominator for the mean.
The probabilities have the gradient  (1 − e) w[c] (−logp[n, c])  times the same factor.
The half dtypes compute in float32 and round once at the end.
"""

from __future__ import annotations

import torch

from mlpkern.reference.bounds import check_ids
from mlpkern.reference.precision import wide, without_autocast

NONE, MEAN, SUM = 0, 1, 2


@without_autocast
def cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> torch.Tensor:
    """``F.cross_entropy`` of rows, differentiable any number of times, by every argument.

    input (N, V); target (N,) ids of any integer dtype or (N, V) probabilities; weight (V,) or None.
    """
    options = (ignore_index, reduction, label_smoothing)
    return cross_entropy_forward(input, target, weight, *options)[0]


@without_autocast
def cross_entropy_forward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss, lse (2, N) = the row maxima and the logs of the sums, and the mean's denominator.

    The loss has the dtype of the input, the other two float32 (float64 for float64).
    """
    dtype = wide(input.dtype)
    x = input.to(dtype)
    class_weight = None if weight is None else weight.to(dtype)
    if target.is_floating_point():
        lse = row_statistics(x)
        share = _smoothed(target.to(dtype), label_smoothing)
        share = share if class_weight is None else share * class_weight
        rows = -(share * _log_probabilities(x, lse)).sum(1)  # (N,)
        total = torch.full((), float(input.shape[0]), dtype=dtype, device=input.device)
    else:
        safe, counted = _checked(target, input.shape[1], ignore_index)
        x = x.masked_fill(~counted.unsqueeze(1), 0.0)  # an ignored row may hold nan
        lse = row_statistics(x)
        logp = _log_probabilities(x, lse)  # (N, V)
        own = counted.to(dtype) if class_weight is None else class_weight[safe] * counted
        rows = own * -logp.gather(1, safe.unsqueeze(1)).squeeze(1)
        if label_smoothing:
            smooth = logp if class_weight is None else logp * class_weight
            spread = -smooth.sum(1) * (label_smoothing / input.shape[1])
            rows = (1 - label_smoothing) * rows + spread
        rows = rows.masked_fill(~counted, 0.0)
        total = own.sum()
    loss = rows if reduction == NONE else rows.sum()
    if reduction == MEAN:
        loss = loss / total
    return loss.to(input.dtype), lse, total


@without_autocast
def cross_entropy_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    lse: torch.Tensor,
    total_weight: torch.Tensor,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> torch.Tensor:
    """The (N, V) gradient of the logits; differentiable if ``lse`` is, see ``row_statistics``."""
    dtype = wide(input.dtype)
    classes = input.shape[1]
    class_weight = None if weight is None else weight.to(dtype)
    p = _log_probabilities(input.to(dtype), lse).exp()  # (N, V)
    factor = _row_factor(grad_output, total_weight, reduction, dtype)
    if target.is_floating_point():
        share = _smoothed(target.to(dtype), label_smoothing)
        share = share if class_weight is None else share * class_weight
        return ((p * share.sum(1, keepdim=True) - share) * factor).to(input.dtype)
    safe, counted = _checked(target, classes, ignore_index)
    safe = safe.unsqueeze(1)  # (N, 1)
    ones = torch.ones((), dtype=dtype, device=input.device)
    own = (1 - label_smoothing) * (ones if class_weight is None else class_weight[safe])
    grad = p * own
    if label_smoothing:
        even = (label_smoothing / classes) * (ones if class_weight is None else class_weight)
        grad = grad + p * even.expand(classes).sum() - even
    grad = grad.scatter_add(1, safe, -own.expand(safe.shape))
    return (grad * factor).masked_fill(~counted.unsqueeze(1), 0.0).to(input.dtype)


@without_autocast
def cross_entropy_target_gradient(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    lse: torch.Tensor,
    total_weight: torch.Tensor,
    reduction: int,
    label_smoothing: float,
) -> torch.Tensor:
    """The (N, V) gradient of target probabilities; differentiable if ``lse`` is."""
    dtype = wide(input.dtype)
    grad = (label_smoothing - 1) * _log_probabilities(input.to(dtype), lse)
    if weight is not None:
        grad = grad * weight.to(dtype)
    factor = _row_factor(grad_output, total_weight, reduction, dtype)
    return (grad * factor).to(input.dtype)


def row_statistics(input: torch.Tensor) -> torch.Tensor:
    """(2, N): the maximum m of each row of (N, V) and s = log(sum of exp(x - m)); differentiable.

    m is a constant to autograd: any constant gives the same m + s, so its derivative cancels.
    """
    x = input.to(wide(input.dtype))
    maximum = x.detach().amax(1)
    return torch.stack((maximum, (x - maximum.unsqueeze(1)).exp().sum(1).log()))


def _log_probabilities(x: torch.Tensor, lse: torch.Tensor) -> torch.Tensor:
    return (x - lse[0].unsqueeze(1)) - lse[1].unsqueeze(1)


def _smoothed(probabilities: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    if not label_smoothing:
        return probabilities
    even = label_smoothing / probabilities.shape[1]
    return (1 - label_smoothing) * probabilities + even


def _checked(
    target: torch.Tensor, classes: int, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 targets with 0 in place of the ignored ones, and the mask of those that count."""
    check_ids("cross_entropy", "target", target, classes, noun="target", ignore_index=ignore_index)
    ids = target.long()  # before comparing: in uint8, -100 would wrap around to 156
    counted = ids != ignore_index
    return ids.masked_fill(~counted, 0), counted


def _row_factor(
    grad_output: torch.Tensor, total_weight: torch.Tensor, reduction: int, dtype: torch.dtype
) -> torch.Tensor:
    """What multiplies the gradient of each row: (N, 1) without reduction, otherwise 0-d."""
    factor = grad_output.to(dtype)
    if reduction == MEAN:
        return factor / total_weight
    return factor if reduction == SUM else factor.unsqueeze(1)
