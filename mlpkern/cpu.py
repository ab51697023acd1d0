"""The backend ``cpu``: the compiled kernels of ``mlpkern._C``, or the reason why there are none."""

from __future__ import annotations

from mlpkern import build_record

#: The compiled functions refuse with TypeError or ValueError whatever they cannot compute.
CHECKS_ARGUMENTS = True

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
        limit_threads,
        linear_tanh_backward,
        linear_tanh_forward,
        parallel_backend,
        train_steps,
    )
except ImportError as error:
    _failure = str(error)
else:
    __all__ = [
        "CHECKS_ARGUMENTS",
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
    ]

BUILD_INFO = build_record.PATH


def status() -> tuple[bool, str, str]:
    """(available, reason, detail), see ``mlpkern.backends.Backend``."""
    failure = native_failure()
    if failure:
        return False, failure, "Install a C++17 compiler and run `pip install -e .` again."
    return True, "", f"compiled C++, {isa()}, threads: {parallel_backend()}"


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
