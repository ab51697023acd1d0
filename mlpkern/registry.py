"""The backends: which there are, which of them can run here, and which one runs a call.

A backend is a module with the low-level functions ``<op>_forward`` and ``<op>_backward``, or only
``<op>`` for the ops that autograd does not see (`train_steps`, `evaluate`), with ``status()``,
which says whether it can run here, and ``CHECKS_ARGUMENTS``: whether its functions refuse wrong
dtypes, shapes and devices themselves, so that a good call is checked only once. A backend is added
by adding that module and one line of ``_REGISTRY``. Its module is imported by the first call that
could use it, never by ``import mlpkern``.

Optional: ``devices_when_named()``, ``check_errors()``, ``why_reference()``, ``which_kernel()`` and
``which_way()`` (see `mlpkern.explanation`), and ``ENDS_EARLY`` (see `mlpkern.mlp.training_call`).
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch

from mlpkern import environment


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


_REGISTRY = {
    "cpu": _Entry("mlpkern.cpu", ("cpu",)),
    "cuda": _Entry("mlpkern.cuda.backend", ("cuda",)),
    "triton": _Entry("mlpkern.triton_kernels.backend", ("cuda",)),
    "reference": _Entry("mlpkern.reference.backend", ()),
}

_chosen: dict[tuple[str, str, str], Any] = {}  # (named backend, op, device type) -> module
_status: dict[str, Backend] = {}


def backends() -> dict[str, Backend]:
    """Every backend by name, in the order in which the automatic choice asks them.

    Examples:
        >>> import mlpkern
        >>> mlpkern.backends()["reference"].available
        True
    """
    return {name: status(name) for name in _REGISTRY}


def status(name: str) -> Backend:
    """The backend ``name``; the modules of the others are not imported."""
    if name not in _status:
        entry = _REGISTRY[name]
        if _is_installed(entry):
            _status[name] = Backend(*load(name).status())
        else:
            reason = f"{entry.module} is not part of this installation"
            _status[name] = Backend(False, reason, "`python -m mlpkern info` lists the rest.")
    return _status[name]


def installed() -> list[str]:
    """The backends whose module is part of this installation, whether or not they can run here."""
    return [name for name, entry in _REGISTRY.items() if _is_installed(entry)]


def has_op(name: str, op: str) -> bool:
    """Whether the backend ``name`` has kernels for ``op``."""
    module = load(name)
    return hasattr(module, f"{op}_forward") or hasattr(module, op)


def load(name: str) -> Any:
    """The module of the backend ``name``."""
    return importlib.import_module(_REGISTRY[name].module)


def select(op: str, tensor: torch.Tensor) -> Any:
    """The backend module that runs ``op`` on the device of ``tensor``, for the calling thread."""
    # Two flags, because `tensor.device.type` costs four times as much as both.
    device = "cpu" if tensor.is_cpu else "cuda" if tensor.is_cuda else tensor.device.type
    key = (environment.named.get(), op, device)
    module = _chosen.get(key)
    if module is None:
        name, _ = decide(op, device)
        module = _chosen[key] = load(name)
    return module


def decide(op: str, device: str) -> tuple[str, str]:
    """The name of the backend for ``op`` on ``device`` and the reason; raises if none may run."""
    for problem in _wrong_values():
        raise ValueError(problem)
    named, source = environment.named_backend()
    if named:
        require(named, source)
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
        found = status(name)
        if found.available and has_op(name, op):
            why = f"the tensors are on {device}"
            if passed_over:
                why += "; passed over: " + "; ".join(passed_over)
            return name, why
        passed_over.append(f"{name} ({found.reason or f'it has no {op}'})")
    raise RuntimeError(f"{op}: no backend runs on {device} tensors")


def require(name: str, source: str) -> None:
    """Raise unless ``name``, which ``source`` gives, is a backend that can run here."""
    if name not in _REGISTRY:
        expected = ", ".join(_REGISTRY)
        raise ValueError(f"{source}: backend must be one of {expected}, got {name!r}")
    found = status(name)
    if not found.available:
        raise RuntimeError(
            f"{source}: backend {name} cannot run here: {found.reason}. {found.detail}".strip()
        )


def refusal(op: str, device: str) -> str:
    """Why the backend that the user names cannot run ``op`` on a device type, or an empty string.

    Also what is wrong with the environment variables; empty where no backend is named.
    """
    try:
        if environment.named_backend()[0]:
            decide(op, device)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return next(iter(_wrong_values()), "")


def environment_problems() -> list[str]:
    """What is wrong with the environment variables of the package, a line each."""
    problems = _wrong_values()
    try:
        if name := environment.backend():
            require(name, environment.BACKEND)
    except (ValueError, RuntimeError) as error:
        problems.append(str(error))
    return problems


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


def _wrong_values() -> list[str]:
    """What is wrong with the values of the variables that the kernels read, a line each."""
    # MLPKERN_ISA is read by the compiled library, which knows what it was built for.
    isa = load("cpu").isa_problem() if _is_installed(_REGISTRY["cpu"]) else ""
    return [*([isa] if isa else []), *environment.problems()]


def _served_when_named(name: str) -> tuple[str, ...]:
    """The device types that the backend serves if the caller names it; empty for every type.

    The automatic choice goes by the registry alone: Triton's interpreter also takes CPU tensors,
    but it is slow, so it must be asked for.
    """
    module = load(name)
    if hasattr(module, "devices_when_named"):
        return module.devices_when_named()
    return _REGISTRY[name].devices


def _is_installed(entry: _Entry) -> bool:
    return importlib.util.find_spec(entry.module) is not None
