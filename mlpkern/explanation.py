"""``explain``: which backend runs a call and why, in one sentence.

A backend may have more to say than its name. ``why_reference(tensors)`` says why it passes a call
on to the reference, ``which_kernel(op, tensors)`` and, for `train_steps` and `evaluate`,
``which_way(op, params, arguments)`` say which of its kernels it takes. Each returns words, or "".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

import mlpkern.functional as functional
from mlpkern.mlp.params import MLPParams
from mlpkern.ops import routing
from mlpkern.registry import decide, load

_OPS = {name: getattr(functional, name) for name in functional.__all__}


def explain(op: str, *args: Any, **kwargs: Any) -> str:
    """One sentence: which backend runs this call, and why that one.

    ``explain("linear_tanh", x, w, b)``: the name of the op, then the arguments of the call. Nothing
    is computed. Raises what the choice of the backend would raise in the call itself.
    """
    if op not in _OPS:
        raise ValueError(f"explain: op must be one of {', '.join(_OPS)}, got {op!r}")
    if op in ("evaluate", "train_steps"):
        return _explain_run(op, args, kwargs)
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if not tensors:
        raise TypeError(f"explain: {op} needs the tensors of the call, got none")
    if composed := routing.why_composed(op, args, kwargs):
        return f"{op} runs as plain torch (reference): {composed}."
    name, why = decide(op, tensors[0].device.type)
    if reason := _ask(name, "why_reference", tensors):
        how = f"computed in plain torch (reference), since {reason}"
    else:
        how = _ask(name, "which_kernel", op, tensors)
    return _sentence(op, name, why, how, routing.why_library(tensors))


def _explain_run(op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """`explain` for the ops that go straight to a backend, whose first argument is MLPParams."""
    arguments = inspect.signature(_OPS[op]).bind_partial(*args, **kwargs).arguments
    params = arguments.pop("params", None)
    if not isinstance(params, MLPParams):
        raise TypeError(f"explain: {op} needs params, a mlpkern.MLPParams, got {type(params)}")
    name, why = decide(op, params.device.type)
    return _sentence(op, name, why, _ask(name, "which_way", op, params, arguments))


def _ask(name: str, question: str, *arguments: Any) -> str:
    """What the backend says to ``question``, or "" if it has nothing to say."""
    answer: Callable[..., str] = getattr(load(name), question, lambda *_: "")
    return answer(*arguments)


def _sentence(op: str, name: str, *parts: str) -> str:
    return f"{op} runs on {name}: {'; '.join(filter(None, parts))}."
