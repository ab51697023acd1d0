"""What ``train_steps`` writes, and that nothing else of a call lies there.

Two tensors are apart if the ranges of memory between their first and last elements are, or if they
are interleaved: every element lies in one window of a common period, and the windows are apart. So
are columns of one matrix, and the parts of a buffer that holds the parameters of M models in rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, combinations, compress

from torch import Tensor

from mlpkern.checks import shape
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.mlp.params import MLPParams


def require_writable(
    op: str, params: MLPParams, state: OptimizerState, read: Mapping[str, Tensor]
) -> list[Tensor]:
    """The tensors that are written: what is not frozen, its moments, and state.stopped.

    ValueError if one of them holds an element twice, or shares memory with another of them or with
    anything that the call reads: frozen parameters and the tensors of ``read``.
    """
    own, kept = params.tensors(), state.tensors()
    trains = [not frozen for frozen in params.is_frozen()]
    writes = [*trains, True, *trains * (len(kept) // len(own))]
    tensors = [*own, *kept]
    written = list(compress(tensors, writes))
    tensors += read.values()
    dense = [tensor.is_contiguous() for tensor in tensors]
    pairs = zip(tensors, dense, strict=True)
    bounds = [(at := t.data_ptr(), at + (t.nbytes if d else _reach(t))) for t, d in pairs]
    in_order = list(chain.from_iterable(sorted(bounds)))
    if in_order == sorted(in_order) and all(compress(dense, writes)):
        return written  # a few us even for many tensors
    names = [*params.names(), *(f"state.{name}" for name in state.names()), *read]
    writes += [False] * len(read)
    for tensor in written:
        if _holds_twice(tensor):
            raise ValueError(
                f"{op}: parameters and state must not hold one element twice, got a tensor "
                f"{shape(tensor)} of strides {tensor.stride()}; clone() it"
            )
    for (i, one), (j, other) in combinations(enumerate(tensors), 2):
        if (writes[i] or writes[j]) and not _apart(one, other):
            raise ValueError(
                f"{op}: {names[i]} and {names[j]} must not share memory, got tensors "
                f"{shape(one)} and {shape(other)} of which elements may lie in one place; "
                "clone() one of them (tied weights cannot be trained)"
            )
    return written


def _holds_twice(tensor: Tensor) -> bool:
    """Whether two elements may lie in one place; slices and permutations of a tensor never do."""
    reach = 0  # of the dimensions with smaller strides
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False


def _reach(tensor: Tensor) -> int:
    """The bytes from the first element to the end of the last."""
    if not tensor.numel():
        return 0
    axes = zip(tensor.stride(), tensor.shape, strict=True)
    return (1 + sum(stride * (size - 1) for stride, size in axes)) * tensor.element_size()


def _axes(tensor: Tensor) -> list[tuple[int, int]]:
    """The step in bytes and the size of each axis."""
    steps = [stride * tensor.element_size() for stride in tensor.stride()]
    return list(zip(steps, tensor.shape, strict=True))


def _apart(one: Tensor, other: Tensor) -> bool:
    """Whether it is certain that no byte belongs to both."""
    begins, reaches = (one.data_ptr(), other.data_ptr()), (_reach(one), _reach(other))
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
