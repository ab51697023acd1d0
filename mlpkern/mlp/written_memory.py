"""Whether the tensors that ``train_steps`` writes share memory with other tensors of the call.

Two tensors are apart if the ranges of memory between their first and last elements are, or if they
are interleaved: every element lies in one window of a common period, and the windows are apart. So
are columns of one matrix, and the parts of a buffer that holds the parameters of M models in rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations, compress

from torch import Tensor

from mlpkern.checks import shape


def require_apart(op: str, tensors: Mapping[str, Tensor], writes: Sequence[bool]) -> None:
    """ValueError if one of ``tensors`` that is written holds an element twice or meets another.

    ``tensors``: all of a call by name. ``writes``: of each, whether it is written.
    """
    for tensor in compress(tensors.values(), writes):
        if _holds_twice(tensor):
            raise ValueError(
                f"{op}: parameters and state must not hold one element twice, got a tensor "
                f"{shape(tensor)} of strides {tensor.stride()}; clone() it"
            )
    both = zip(tensors.items(), writes, strict=True)
    for ((name, one), write), ((other_name, other), other_write) in combinations(both, 2):
        if (write or other_write) and not _apart(one, other):
            raise ValueError(
                f"{op}: {name} and {other_name} must not share memory, got tensors "
                f"{shape(one)} and {shape(other)} of which elements may lie in one place; "
                "clone() one of them (tied weights cannot be trained)"
            )


def reach(tensor: Tensor) -> int:
    """The bytes from the first element to the end of the last."""
    if not tensor.numel():
        return 0
    axes = zip(tensor.stride(), tensor.shape, strict=True)
    return (1 + sum(stride * (size - 1) for stride, size in axes)) * tensor.element_size()


def _holds_twice(tensor: Tensor) -> bool:
    """Whether two elements may lie in one place; slices and permutations of a tensor never do."""
    reach = 0  # of the dimensions with smaller strides
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def _axes(tensor: Tensor) -> list[tuple[int, int]]:
    """The step in bytes and the size of each axis."""
    steps = [stride * tensor.element_size() for stride in tensor.stride()]
    return list(zip(steps, tensor.shape, strict=True))


def _apart(one: Tensor, other: Tensor) -> bool:
    """Whether it is certain that no byte belongs to both."""
    begins, reaches = (one.data_ptr(), other.data_ptr()), (reach(one), reach(other))
    if begins[0] + reaches[0] <= begins[1] or begins[1] + reaches[1] <= begins[0]:
        return True
    axes = [_axes(one), _axes(other)]
    for period in {step for step, size in chain(*axes) if size > 1 and step > 0}:
        widths = [
            tensor.element_size() + sum(step * (size - 1) for step, size in own if step % period)
            for tensor, own in zip((one, other), axes, strict=True)
        ]
        distance = (begins[1] - begins[0]) % period  # from one window to the other
        if widths[0] <= distance and widths[1] <= period - distance:
            return True
    return False
