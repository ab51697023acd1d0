"""Which implementation runs a call: the registry of backends, the choice, and its explanation.

A backend is a module with the low-level functions ``<op>_forward`` and ``<op>_backward``, or only
``<op>`` for the ops that autograd does not see (`train_steps`, `evaluate`), a
``status()`` that says whether it can run here, and ``CHECKS_ARGUMENTS``: whether its functions
refuse wrong dtypes, shapes and devices themselves, so that a good call is checked only once. Adding
one is adding that module and one line of ``_REGISTRY``. Modules are imported at the first call that
could use them, never by ``import mlpkern``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

ENVIRONMENT_VARIABLE = "MLPKERN_BACKEND"


@dataclass(frozen=True)
class Backend:
    """Whether a backend can run here, why not (empty when it can), and one line about it."""

    available: bool
    reason: str
    detail: str


@dataclass(frozen=True)
class _Entry:
    module: str
    devices: tuple[str, ...]  # device types it serves; empty for every type
    absent: str  # the reason given when the module is not part of this installation


_REGISTRY = {
    "cpu": _Entry("mlpkern.cpu", ("cpu",), ""),
    "cuda": _Entry("mlpkern.cuda", ("cuda",), ""),
    "triton": _Entry("mlpkern.triton_kernels", ("cuda",), ""),
    "reference": _Entry("mlpkern.reference", (), ""),
}

_named: ContextVar[str | None] = ContextVar("mlpkern_backend", default=None)
_chosen: dict[tuple[str | None, str, str], Any] = {}  # (named backend, op, device type) -> module
_status: dict[str, Backend] = {}


def backends() -> dict[str, Backend]:
    """Every backend by name, in the order in which the automatic choice asks them.

    >>> mlpkern.backends()["reference"].available
    True
    """
    return {name: _backend(name) for name in _REGISTRY}


def installed() -> list[str]:
    """The backends whose module is part of this installation, whether or not they can run here."""
    return [name for name, entry in _REGISTRY.items() if importlib.util.find_spec(entry.module)]


def has_op(name: str, op: str) -> bool:
    """Whether the backend ``name`` has kernels for ``op``."""
    module = _load(name)
    # callable: a package of kernels also has its submodules, which carry the names of the ops
    return any(callable(getattr(module, f, None)) for f in (f"{op}_forward", op))


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the ``with`` block (or the decorated function), run every op on the backend ``name``.

    Holds for the calling thread, or the asyncio task. A backward runs on the backend that its
    forward ran on. The environment variable MLPKERN_BACKEND, read at the first call, names one
    for the whole process; this function overrides it.

    Raises ValueError for a name that does not exist and RuntimeError for a backend that cannot
    run here. There is no fallback: within the block, a tensor on a device that ``name`` does not
    serve raises too.
    """
    _require(name, "use_backend")
    token = _named.set(name)
    try:
        yield
    finally:
        _named.reset(token)


def check_errors() -> None:
    """Raise what a GPU could not raise in the call itself: IndexError for a bad id or target.

    On a GPU an id out of range makes its row NaN and the call returns, since the host does not wait
    for it. The first such id is remembered; this function waits for the GPUs that were used, raises
    the IndexError that a CPU raises in the call, and forgets the id. On a CPU there is nothing to
    do. Not for use while a CUDA graph is being captured.
    """
    for module in list(_chosen.values()):
        if hasattr(module, "check_errors"):
            module.check_errors()


def select(op: str, tensor: torch.Tensor) -> Any:
    """The backend module that runs ``op`` on the device of ``tensor``, for the calling thread."""
    # Two flags, because `tensor.device.type` costs four times as much as both.
    device = "cpu" if tensor.is_cpu else "cuda" if tensor.is_cuda else tensor.device.type
    key = (_named.get(), op, device)
    module = _chosen.get(key)
    if module is None:
        name, _ = _decide(op, device)
        module = _chosen[key] = _load(name)
    return module


def explain(op: str, *args: Any, **kwargs: Any) -> str:
    """One sentence: which backend runs this call, and why that one.

    ``explain("linear_tanh", x, w, b)``: the name of the op, then the arguments of the call. Nothing
    is computed. Raises what the choice of the backend would raise in the call itself.
    """
    from mlpkern import functional

    if op not in functional.__all__:
        raise ValueError(f"explain: op must be one of {', '.join(functional.__all__)}, got {op!r}")
    if op in ("evaluate", "train_steps"):
        return _explain_run(op, inspect.signature(getattr(functional, op)), args, kwargs)
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if not tensors:
        raise TypeError(f"explain: {op} needs the tensors of the call, got none")
    from mlpkern.ops import routing

    exception = routing.why_composed(op, args, kwargs)
    if exception:
        return f"{op} runs as plain torch (reference): {exception}."
    name, why = _decide(op, tensors[0].device.type)
    how = routing.why_library(tensors)
    exception = _why_reference(name, tensors)
    if exception:
        how = f"computed in plain torch (reference), since {exception}" + (
            f"; {how}" if how else ""
        )
    return f"{op} runs on {name}: {why}{'; ' + how if how else ''}."


def _explain_run(
    op: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    """`explain` for the ops that go straight to a backend, whose first argument is MLPParams."""
    from mlpkern.params import MLPParams

    arguments = signature.bind_partial(*args, **kwargs).arguments
    params = arguments.pop("params", None)
    if not isinstance(params, MLPParams):
        raise TypeError(f"explain: {op} needs params, a mlpkern.MLPParams, got {type(params)}")
    name, why = _decide(op, params.device.type)
    module = _load(name)
    way = module.which_way(op, params, arguments) if hasattr(module, "which_way") else ""
    return f"{op} runs on {name}: {why}{'; ' + way if way else ''}."


def _decide(op: str, device: str) -> tuple[str, str]:
    """The name of the backend for ``op`` on ``device`` and the reason; raises if none may run."""
    named, source = _named.get(), "use_backend"
    if named is None:
        named, source = os.environ.get(ENVIRONMENT_VARIABLE) or None, ENVIRONMENT_VARIABLE
    if named is not None:
        _require(named, source)
        served = _served_when_named(named)
        if served and device not in served:
            raise RuntimeError(
                f"{source}: backend {named} runs on {' and '.join(served)} tensors, {op} got "
                f"{device} tensors; move them, or choose a backend for {device}"
            )
        if not has_op(named, op):
            raise RuntimeError(f"{source}: backend {named} has no {op}; choose another backend")
        return named, f"named by {source}"
    passed_over: list[str] = []
    for name, entry in _REGISTRY.items():
        if entry.devices and device not in entry.devices:
            continue
        status = _backend(name)
        if status.available and has_op(name, op):
            why = f"the tensors are on {device}"
            if passed_over:
                why += "; passed over: " + "; ".join(passed_over)
            return name, why
        passed_over.append(f"{name} ({status.reason or f'it has no {op}'})")
    raise RuntimeError(f"{op}: no backend runs on {device} tensors")


def _served_when_named(name: str) -> tuple[str, ...]:
    """The device types that the backend serves to who names it; empty for every type.

    The automatic choice goes by the registry alone: an interpreter of GPU kernels also serves CPU
    tensors, but nobody wants it unasked.
    """
    module = _load(name)
    if hasattr(module, "devices_when_named"):
        return module.devices_when_named()
    return _REGISTRY[name].devices


def _why_reference(name: str, tensors: Sequence[torch.Tensor]) -> str:
    """Why the backend passes a call of these tensors on to the reference, or an empty string."""
    module = _load(name)
    return module.why_reference(tensors) if hasattr(module, "why_reference") else ""


def _require(name: str, source: str) -> None:
    """Raise unless ``name`` is a backend that can run here."""
    if name not in _REGISTRY:
        expected = ", ".join(_REGISTRY)
        raise ValueError(f"{source}: backend must be one of {expected}, got {name!r}")
    status = _backend(name)
    if not status.available:
        raise RuntimeError(
            f"{source}: backend {name} cannot run here: {status.reason}. {status.detail}".strip()
        )


def _backend(name: str) -> Backend:
    if name not in _status:
        entry = _REGISTRY[name]
        if name not in installed():
            _status[name] = Backend(False, entry.absent, "`python -m mlpkern info` lists the rest.")
        else:
            _status[name] = Backend(*_load(name).status())
    return _status[name]


def _load(name: str) -> Any:
    return importlib.import_module(_REGISTRY[name].module)
