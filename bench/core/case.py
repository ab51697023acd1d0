"""A case of the benchmark: its tensors, and the least bytes and flops that it needs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

LARGE_OUTPUT_BYTES = 8 << 20  # from here on fresh pages of outputs take a visible time

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,  # matrix products by tensor cores, operands with ten bits of mantissa
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Unavailable(Exception):
    """Something cannot run here; the message says why and is shown in its place."""


@dataclass(frozen=True)
class Cost:
    """Floors of one forward + backward: no implementation of the op can move or compute less."""

    bytes: int  # read or written, each tensor once per pass that needs it
    flops: int  # multiplications and additions of the matrix products; 0 for the other ops
    footprint: int  # distinct bytes touched: says which level of memory has to deliver them
    largest_output: int  # bytes of the largest tensor that every call makes anew

    @property
    def large(self) -> bool:
        return self.largest_output >= LARGE_OUTPUT_BYTES


@dataclass(frozen=True)
class Case:
    """One row group of the table: an op at one shape and dtype."""

    op: str
    shape: str
    dtype: str
    sizes: Mapping[str, int]
    quick: bool = False
    rotate: bool = False  # on a GPU each call takes the next copy of the inputs, so none is cached
    slow: bool = field(default=False, kw_only=True)  # a call takes about a second: few are made

    @property
    def name(self) -> str:
        return f"{self.op} {self.shape} {self.dtype}"

    def generator(self, device: str = "cpu") -> torch.Generator:
        """A generator whose seed is the case's name, so every process draws the same inputs."""
        return torch.Generator(device).manual_seed(zlib.crc32(self.name.encode()))


@dataclass(frozen=True)
class Problem:
    """The tensors of a case. `differentiable` are the positions in `args` that get a gradient."""

    args: tuple[Tensor, ...]
    names: tuple[str, ...]
    differentiable: tuple[int, ...]
    grad_output: Tensor

    def in_float64(self) -> Problem:
        """The same numbers in float64, detached: the input of the accuracy reference."""
        args = tuple(
            a.detach().double().requires_grad_(a.requires_grad) if a.is_floating_point() else a
            for a in self.args
        )
        return Problem(args, self.names, self.differentiable, self.grad_output.double())

    def leaves(self, *, copy: bool = False) -> Problem:
        """The same tensors as leaves of their own; with `copy` in memory of their own."""

        def leaf(tensor: Tensor) -> Tensor:
            fresh = tensor.detach().clone() if copy else tensor.detach()
            return fresh.requires_grad_(tensor.requires_grad)

        args = tuple(leaf(a) for a in self.args)
        return Problem(args, self.names, self.differentiable, leaf(self.grad_output))

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.args, self.grad_output))

    def result_names(self) -> tuple[str, ...]:
        return ("output", *(f"grad_{self.names[i]}" for i in self.differentiable))


@dataclass(frozen=True)
class OpTable:
    """Everything the benchmark knows about one op; each bench/<op>.py makes one."""

    op: str
    cases: tuple[Case, ...]
    problem: Callable[..., Problem]  # of a case and a device
    cost: Callable[[Case], Cost]
    stock: Callable[..., Tensor]  # the expression in plain torch
    cuda_cases: tuple[Case, ...] = ()
    jax: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # row -> the op in JAX
    ours: Callable[..., Tensor] | None = None  # for tests, instead of mlpkern's function

    @property
    def fused(self) -> Callable[..., Tensor]:
        """mlpkern's function of this name."""
        import mlpkern

        return self.ours or getattr(mlpkern, self.op)


@dataclass(frozen=True)
class Settings:
    """What the command line asks of every case. `threads` matters on a CPU only."""

    threads: int
    quick: bool = False
    compile: bool = True
    jax: bool = True
    budget_s: float = 8.0  # of timing, per case
    min_sample_s: float = 2e-3
    device: str = "cpu"
    hurry: bool = False  # no autotuning, for want of time

    @property
    def compile_threads(self) -> list[int]:
        """Thread counts at which torch.compile is timed; the last one is all threads."""
        if not self.compile:
            return []
        return [self.threads] if self.quick or self.threads == 1 else [1, self.threads]

    @property
    def autotune(self) -> bool:
        return self.compile and not self.quick and not self.hurry


def forward_backward(
    function: Callable[..., Tensor], problem: Problem
) -> Callable[[], tuple[Tensor, ...]]:
    """A call without arguments that runs `function` and autograd; returns output and gradients.

    This is the unit that every provider of an op is timed on.
    """
    args, upstream = problem.args, problem.grad_output
    wanted = tuple(args[i] for i in problem.differentiable)

    def call() -> tuple[Tensor, ...]:
        output = function(*args)
        return (output, *torch.autograd.grad(output, wanted, upstream))

    return call


def random_normal(case: Case, generator: torch.Generator, *shape: int) -> Tensor:
    """Normal numbers drawn in float32 and rounded to the dtype of the case."""
    drawn = torch.randn(*shape, generator=generator, device=generator.device)
    return drawn.to(DTYPES[case.dtype])


def itemsize(case: Case) -> int:
    return DTYPES[case.dtype].itemsize
