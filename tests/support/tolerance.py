"""The tolerance of the op tests: torch's own error, measured on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INTEGERS = [torch.uint8, torch.int16, torch.int32, torch.int64]

# Two correct kernels add the same terms in different orders. Their largest errors then differ by
# chance, for the sums of these tests by less than a factor of two.
SLACK = 2.0

# Some roundings of the largest value are allowed as well, because torch may be exact by luck (a
# loss is a single number). float32: a value passes a few rounded steps, such as subtract, exp, sum,
# log. Half dtypes: computed in float32 and rounded once. float64: torch is the reference itself and
# its error is unknown; sums of some thousand terms in two orders differ by some tens of roundings.
ROUNDINGS = {torch.float64: 64, torch.float32: 4, torch.bfloat16: 1, torch.float16: 1}


def assert_as_good_as_torch(ours: Tensor, stock: Tensor, exact: Tensor, what: str = "") -> None:
    """Our largest error against float64 is at most SLACK times torch's, plus ROUNDINGS."""
    assert ours.dtype == stock.dtype, what
    assert ours.shape == stock.shape, what
    finite = exact.isfinite()
    torch.testing.assert_close(
        ours[~finite].double(), exact[~finite], rtol=0, atol=0, equal_nan=True, msg=what or None
    )
    if not finite.any():
        return
    reference = exact[finite]
    error = (ours[finite].double() - reference).abs().max().item()
    error_of_torch = (stock[finite].double() - reference).abs().max().item()
    floor = ROUNDINGS[ours.dtype] * torch.finfo(ours.dtype).eps * reference.abs().max().item()
    limit = SLACK * error_of_torch + floor
    assert error <= limit, f"{what}: error {error:.3g}, torch's {error_of_torch:.3g}"


def compare(
    ours: Callable[..., Tensor],
    stock: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    needs: Sequence[bool] | None = None,
) -> None:
    """Check the output and the gradients of ``ours(*tensors)``, for a random output gradient.

    ``stock`` is the same function in torch; it runs in the dtype of the tensors and in float64.
    ``needs``: which tensors require a gradient; by default all of floating dtype.
    """
    if needs is None:
        needs = [tensor.is_floating_point() for tensor in tensors]
    grad_seed = torch.initial_seed()
    results = [
        _run(function, tensors, needs, dtype, grad_seed)
        for function, dtype in ((ours, None), (stock, None), (stock, torch.float64))
    ]
    names = ["output", *(f"gradient of argument {i}" for i, need in enumerate(needs) if need)]
    for name, *values in zip(names, *results, strict=True):
        assert_as_good_as_torch(*values, what=name)


def _run(
    function: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    needs: Sequence[bool],
    dtype: torch.dtype | None,
    grad_seed: int,
) -> list[Tensor]:
    """The output and the needed gradients, in the dtype of the tensors or in another one."""
    own = next(t.dtype for t in tensors if t.is_floating_point())
    leaves = []
    for tensor, need in zip(tensors, needs, strict=True):
        leaf = tensor.detach()
        if dtype is not None and leaf.is_floating_point():
            leaf = leaf.to(dtype)
        leaves.append(leaf.requires_grad_() if need else leaf)
    output = function(*leaves)
    generator = torch.Generator().manual_seed(grad_seed)
    # Drawn in float64 and rounded to the dtype of the tensors, so that all runs get the same one.
    grad = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    grad = grad.to(own).to(output.dtype).to(output.device)
    wanted = [leaf for leaf, need in zip(leaves, needs, strict=True) if need]
    return [output.detach(), *torch.autograd.grad(output, wanted, grad)]
