"""The backend ``cpu``: the compiled kernels of ``mlpkern._C``, or the reason why there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mlpkern import build_record, environment

if TYPE_CHECKING:
    from mlpkern.mlp.params import MLPParams

#: The compiled functions raise TypeError or ValueError for whatever they cannot compute.
CHECKS_ARGUMENTS = True

#: train_steps returns early when a signal arrives or its flag is set.
ENDS_EARLY = True

_failure = ""
try:
    from mlpkern._C import (
        cross_entropy_backward,
        cross_entropy_forward,
        embedding_gather_backward,
        embedding_gather_forward,
        embedding_linear_tanh_backward,
        embedding_linear_tanh_forward,
        evaluate,
        isa,
        isa_error,
        limit_threads,
        linear_tanh_backward,
        linear_tanh_forward,
        num_threads,
        parallel_backend,
        set_cache_limit,
        thread_latency,
        train_steps,
        train_steps_sharing,
    )
except ImportError as error:
    _failure = str(error)
else:
    __all__ = [
        "CHECKS_ARGUMENTS",
        "ENDS_EARLY",
        "cross_entropy_backward",
        "cross_entropy_forward",
        "embedding_gather_backward",
        "embedding_gather_forward",
        "embedding_linear_tanh_backward",
        "embedding_linear_tanh_forward",
        "evaluate",
        "limit_threads",
        "linear_tanh_backward",
        "linear_tanh_forward",
        "train_steps",
        "which_way",
    ]
    with contextlib.suppress(ValueError):  # raised again when a backend is chosen
        if (limit := environment.cache_limit()) is not None:
            set_cache_limit(limit)

BUILD_INFO = build_record.PATH


def status() -> tuple[bool, str, str]:
    """(available, reason, detail), see ``mlpkern.registry.Backend``."""
    failure = native_failure()
    if failure:
        return False, failure, "Install a C++17 compiler and run `pip install -e .` again."
    if isa() == "none":
        return False, isa_error() or "", "The other backends do not need it."
    if problem := isa_problem():
        return False, problem, "Change or unset the variable."
    return True, "", f"compiled C++, {isa()}, threads: {parallel_backend()}"


def which_way(op: str, params: MLPParams, arguments: dict[str, Any]) -> str:
    """How many threads a call of ``op`` takes; ``arguments``: those given, by name."""
    if op != "train_steps" or "batches" not in arguments:
        return ""
    threads, models = num_threads(), params.models or 1
    if threads == 1:
        return "on one thread, as torch.set_num_threads says"
    embedding, *layers = params.tensors()
    dropout = arguments.get("input_dropout", 0.0)
    step, together = train_steps_sharing(
        models,
        arguments["batches"].shape[-1],
        embedding.shape[-2],
        params.context,
        [embedding.shape[-1], *(bias.shape[-1] for bias in layers[1::2])],
        params.dtype == torch.float64,
        max(dropout) > 0 if isinstance(dropout, Sequence) else float(dropout) > 0,
    )
    if step > 1:
        return f"{step} threads share every step"
    if together > 1:
        return f"{together} threads, each with models of its own"
    awake = thread_latency()[0] * 1e6
    return f"on one of {threads} threads: a step is too short for a start of {awake:.2g} µs a loop"


def isa_problem() -> str:
    """Why the instruction set that MLPKERN_ISA names cannot be used, or an empty string."""
    return "" if _failure or isa() == "none" else isa_error() or ""


def native_failure() -> str:
    """Why ``mlpkern._C`` is missing: what the build wrote down, otherwise the import error."""
    if not _failure:
        return ""
    info = build_record.read(BUILD_INFO)
    if not info:
        return f"mlpkern._C was not built ({_failure})"
    if info.get("native") or not info.get("reason"):  # built, but it does not load
        return f"mlpkern._C does not load ({_failure})"
    return f"mlpkern._C was not built: {info['reason']}"
