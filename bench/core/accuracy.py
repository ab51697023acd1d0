"""Correctness before speed: a provider may be timed only if its numbers are as good as stock's.

The yardstick is the stock expression evaluated in float64 on the same (already rounded) inputs.
For the output and every gradient, both the largest and the root-mean-square error of a provider may
be at most twice the error of stock eager at the same dtype, plus one rounding unit of the dtype at
the scale of the reference. The unit is there because stock is sometimes exact by luck (a scalar).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bench.core.case import OpTable, Problem, forward_backward

SLACK = 2.0
PIECE = 1 << 20  # numbers compared at a time: larger pieces take fresh pages of memory


@dataclass(frozen=True)
class Errors:
    """Errors of one tensor against float64."""

    largest: float
    rms: float


@dataclass(frozen=True)
class Check:
    """A provider's error on one tensor, stock's, and whether it is within the rule."""

    tensor: str
    error: Errors
    stock: Errors
    allowed: Errors
    passed: bool

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON, which knows no NaN: a number that is not finite becomes its name."""

        def plain(errors: Errors) -> dict[str, float | str]:
            return {k: v if math.isfinite(v) else str(v) for k, v in asdict(errors).items()}

        return {
            "tensor": self.tensor,
            "error": plain(self.error),
            "stock": plain(self.stock),
            "allowed": plain(self.allowed),
            "passed": self.passed,
        }

    def message(self) -> str:
        return (
            f"{self.tensor}: error {self.error.largest:.2g} (rms {self.error.rms:.2g}), "
            f"allowed {self.allowed.largest:.2g} (rms {self.allowed.rms:.2g})"
        )


class Yardstick:
    """The float64 results of a problem and the errors of stock eager on it."""

    def __init__(self, names: Sequence[str], exact: Sequence[Tensor], stock: Sequence[Tensor]):
        self.names = tuple(names)
        self.exact = tuple(exact)
        self.stock = tuple(errors(s, e) for s, e in zip(stock, exact, strict=True))
        self.units = tuple(
            Errors(eps * float(e.abs().max()), eps * _rms(e)) if e.numel() else Errors(0.0, 0.0)
            for eps, e in ((torch.finfo(s.dtype).eps, e) for s, e in zip(stock, exact, strict=True))
        )
        self.like = tuple((s.shape, s.dtype) for s in stock)

    @classmethod
    def of(cls, table: OpTable, problem: Problem) -> Yardstick:
        exact = forward_backward(table.stock, problem.in_float64())()
        stock = forward_backward(table.stock, problem)()
        return cls(problem.result_names(), [t.detach() for t in exact], [t.detach() for t in stock])

    def check(self, results: Sequence[Tensor]) -> list[Check]:
        """One Check per tensor; a wrong count, shape or dtype fails like a wrong number."""
        if len(results) != len(self.exact):
            raise ValueError(f"expected {len(self.exact)} results, got {len(results)}")
        checks = []
        for i, result in enumerate(results):
            stock, unit = self.stock[i], self.units[i]
            allowed = Errors(
                SLACK * stock.largest + unit.largest,
                SLACK * stock.rms + unit.rms,
            )
            alike = (result.shape, result.dtype) == self.like[i]
            error = errors(result, self.exact[i]) if alike else Errors(float("inf"), float("inf"))
            # written so that NaN fails
            passed = error.largest <= allowed.largest and error.rms <= allowed.rms
            checks.append(Check(self.names[i], error, stock, allowed, passed))
        return checks


def errors(result: Tensor, exact: Tensor) -> Errors:
    """Largest and root-mean-square distance of `result` from the float64 tensor `exact`."""
    if exact.numel() == 0:
        return Errors(0.0, 0.0)
    largest, norms = [], []
    pieces = zip(
        result.detach().reshape(-1).split(PIECE), exact.reshape(-1).split(PIECE), strict=True
    )
    for ours, right in pieces:
        difference = ours.double() - right
        largest.append(difference.abs().max())  # NaN stays NaN, here and below
        norms.append(torch.linalg.vector_norm(difference))
    rms = float(torch.linalg.vector_norm(torch.stack(norms))) / exact.numel() ** 0.5
    return Errors(float(torch.stack(largest).max()), rms)


def _rms(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values)) / values.numel() ** 0.5
