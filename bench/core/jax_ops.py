"""The ops in JAX: forward and backward of one function as one jitted call. Runs in its process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.core.case import Case, OpTable
from bench.core.providers import Prepared


def prepare_op(table: OpTable, name: str, case: Case, wait: bool) -> Prepared:
    """The function `name` of `table.jax` on the inputs of the case.

    Calls queue up unless `wait` is set, as it is where their outputs would fill the memory.
    """
    import jax

    problem, function = table.problem(case), table.jax[name]
    args = tuple(on_jax(tensor) for tensor in problem.args)
    upstream = on_jax(problem.grad_output)

    @jax.jit
    def both(args: tuple[Any, ...], upstream: Any) -> tuple[Any, ...]:
        def of(*wanted: Any) -> Any:
            given = list(args)
            for place, value in zip(problem.differentiable, wanted, strict=True):
                given[place] = value
            return function(*given)

        output, back = jax.vjp(of, *(args[i] for i in problem.differentiable))
        return (output, *back(upstream))

    return jitted(both, args, upstream, wait=wait)


def jitted(function: Callable[..., Any], *arguments: Any, wait: bool = True) -> Prepared:
    """Calls of a jitted function, each to its end if `wait`."""
    import jax

    def call() -> Any:
        results = function(*arguments)
        return jax.block_until_ready(results) if wait else results

    return Prepared(call, call)


def mean_loss(logits: Any, targets: Any) -> Any:
    """Cross-entropy in float32. A log_softmax of all symbols takes up to ten times as long."""
    import jax
    import jax.numpy as jnp

    logits = logits.astype(jnp.float32)  # (N, V)
    of_target = jnp.take_along_axis(logits, targets[:, None], 1)[:, 0]  # (N,)
    return (jax.nn.logsumexp(logits, 1) - of_target).mean()


def on_jax(tensor: Tensor) -> Any:
    """A copy on JAX's device; ids are int32, which is what JAX uses."""
    import jax.numpy as jnp

    tensor = tensor.detach()
    if not tensor.is_floating_point():
        return jnp.array(tensor.to(torch.int32).numpy())
    dtype = str(tensor.dtype).removeprefix("torch.")
    return jnp.array(tensor.float().numpy(), dtype=dtype)  # NumPy has no bfloat16
