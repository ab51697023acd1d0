"""The checks of the arguments of ``cross_entropy``."""

from __future__ import annotations

from torch import Tensor

from mlpkern.checks import (
    dtype_name,
    integer,
    real,
    require_float,
    require_integer,
    require_same_device,
    require_tensor,
    shape,
)

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

_OP = "cross_entropy"


def check(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> None:
    """Raise what the docstring of ``cross_entropy`` announces, but for two checks made elsewhere.

    The ids are left to the backend, and the dtype of ``weight`` to the caller, after autocast.
    """
    check_rows(input, target, weight)
    _check_ignore_index(target, ignore_index)
    if reduction not in REDUCTIONS:
        raise ValueError(f"{_OP}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
    if not 0.0 <= real(_OP, "label_smoothing", label_smoothing) <= 1.0:
        raise ValueError(
            f"{_OP}: label_smoothing must be 0 <= label_smoothing <= 1, got {label_smoothing}"
        )


def check_rows(input: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """The checks that a backend with checks of its own makes too."""
    require_tensor(_OP, "input", input)
    require_tensor(_OP, "target", target)
    require_float(_OP, "input", input)
    if input.dim() == 0:
        raise ValueError(f"{_OP}: input must be (C,), (N, C) or (N, C, d1, ...), got ()")
    classes = input.shape[0 if input.dim() == 1 else 1]
    if classes == 0:
        raise ValueError(f"{_OP}: input must have at least one class, got {shape(input)}")
    _check_target(input, target)
    require_same_device(_OP, "target", target, "input", input)
    if weight is not None:
        require_tensor(_OP, "weight", weight)
        if weight.dim() != 1 or weight.shape[0] != classes:
            raise ValueError(
                f"{_OP}: weight must be ({classes},) to match input {shape(input)}, "
                f"got {shape(weight)}"
            )
        require_same_device(_OP, "weight", weight, "input", input)


def _check_ignore_index(target: Tensor, ignore_index: int) -> None:
    index = integer(_OP, "ignore_index", ignore_index)
    if target.is_floating_point() and index >= 0:
        raise ValueError(
            f"{_OP}: ignore_index must be negative (unused) with class probabilities, "
            f"got {ignore_index}"
        )


def _check_target(input: Tensor, target: Tensor) -> None:
    if target.is_floating_point():
        require_float(_OP, "target", target)
        if target.shape != input.shape:
            raise ValueError(
                f"{_OP}: target of dtype {dtype_name(target)} means class probabilities and must "
                f"be {shape(input)} like input, got {shape(target)}"
            )
        return
    require_integer(_OP, "target", target)
    expected = input.shape[:1] + input.shape[2:] if input.dim() > 1 else input.shape[:0]
    if target.shape != expected:
        sizes = f"({', '.join(map(str, expected))}{',' if len(expected) == 1 else ''})"
        raise ValueError(
            f"{_OP}: target must be {sizes} class ids to match input {shape(input)}, "
            f"got {shape(target)}"
        )
