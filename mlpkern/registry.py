"""Which implementation runs a call: the registry of backends, the choice, and its explanation.

A backend is a module with the low-level functions ``<op>_forward`` and ``<op>_backward``, or only
``<op>`` for the ops that autograd does not see (`train_steps`, `evaluate`), a
``status()`` that says whether it can run here, and ``CHECKS_ARGUMENTS``: whether its functions
refuse wrong dtypes, shapes and devices themselves, so that a good call is checked only once. Adding
one is adding that module and one line of ``_REGISTRY``. Modules are imported at the first call that
could use them, never by ``import mlpkern``. One whose ``train_steps`` can end early says so by
``ENDS_EARLY``, see ``mlpkern.mlp.training_call``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch

from mlpkern import environment

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
    "cuda": _Entry("mlpkern.cuda.backend", ("cuda",), ""),
    "triton": _Entry("mlpkern.triton_kernels", ("cuda",), ""),
    "reference": _Entry("mlpkern.reference", (), ""),
}

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The backend that use_backend names, "" for none; the blocks begun here, with the name before each.
_named: ContextVar[str] = ContextVar("mlpkern_backend", default="")
_blocks: ContextVar[tuple[tuple[use_backend, str], ...]] = ContextVar("mlpkern_blocks", default=())
_chosen: dict[tuple[str, str, str], Any] = {}  # (named backend, op, device type) -> module
_status: dict[str, Backend] = {}


def backends() -> dict[str, Backend]:
    """Every backend by name, in the order in which the automatic choice asks them.

    Examples:
        >>> mlpkern.backends()["reference"].available
        True
    """
    return {name: _backend(name) for name in _REGISTRY}


def installed() -> list[str]:
    """The backends whose module is part of this installation, whether or not they can run here."""
    return [name for name, entry in _REGISTRY.items() if importlib.util.find_spec(entry.module)]


def environment_problems() -> list[str]:
    """What is wrong with the environment variables of the package, a line each."""
    problems = environment.problems()
    try:
        if name := os.environ.get(ENVIRONMENT_VARIABLE):
            _require(name, ENVIRONMENT_VARIABLE)
    except (ValueError, RuntimeError) as error:
        problems.append(str(error))
    return problems


def refusal(op: str, device: str) -> str:
    """Why the backend that the user names cannot run ``op`` on a device type, or an empty string.

    Also what is wrong with the environment; empty where nothing is named.
    """
    try:
        environment.require()
        if _named.get() or os.environ.get(ENVIRONMENT_VARIABLE):
            _decide(op, device)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def has_op(name: str, op: str) -> bool:
    """Whether the backend ``name`` has kernels for ``op``."""
    module = _load(name)
    # callable: a package of kernels also has its submodules, which carry the names of the ops
    return any(callable(getattr(module, f, None)) for f in (f"{op}_forward", op))


class use_backend:
    """Run every op on the backend ``name``, from this call on; None takes the choice back.

    Three forms, for the calling thread or asyncio task alone:

        use_backend("reference")  # from here on, until use_backend(None) or another name

        with use_backend("reference"):  # in the block; its end restores what held before
            ...

        @use_backend("reference")  # in each call of the function, which may be async
        def loss(x): ...

    As a statement it acts at once, and inside a ``with`` block until the block ends. The two other
    forms change nothing but their block or their function: to decorate takes back what the call
    itself did. An object may be kept and entered any number of times, also nested; it acts from
    where it is made, as the statement does. A thread begins without a choice, an asyncio task with
    that of the code that starts it.

    ``use_backend(None)`` leaves the choice to the environment variable MLPKERN_BACKEND, which names
    a backend for the whole process and is read at the first call of each op, or else to the device
    of the tensors. A backward runs on the backend that its forward ran on.

    Raises, at this call, ValueError for a name that does not exist and RuntimeError for a backend
    that cannot run here. There is no fallback: a tensor on a device that ``name`` does not serve
    raises too. TypeError for decorating anything but a function, or a generator function, whose
    caller would run on the backend as well between two values.
    """

    def __init__(self, name: str | None) -> None:
        if name is not None:
            _require(name, "use_backend")
        self._name = name or ""
        self._before = _named.get()
        # A string of its own, by which this call is told from every other one of the same name.
        self._statement = _Statement(self._name)
        _named.set(self._statement)

    def __enter__(self) -> None:
        _blocks.set((*_blocks.get(), (self, self._outside())))
        _named.set(self._name)

    def __exit__(self, *_: object) -> None:
        blocks = _blocks.get()
        at = next((i for i in reversed(range(len(blocks))) if blocks[i][0] is self), None)
        if at is None:
            raise RuntimeError("use_backend: a with block must end in the thread where it began")
        _blocks.set(blocks[:at] + blocks[at + 1 :])
        _named.set(blocks[at][1])

    def __call__(self, function: _Function) -> _Function:
        _named.set(self._outside())
        if isinstance(function, type) or not callable(function):
            kind = function.__name__ if isinstance(function, type) else type(function).__name__
            raise TypeError(f"use_backend: can decorate functions only, got {kind}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"use_backend: cannot decorate the generator function {function.__qualname__}; "
                "use a with block inside it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast(_Function, run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return cast(_Function, run)

    def _outside(self) -> str:
        """The name that holds without this object's own statement."""
        named = _named.get()
        return self._before if named is self._statement else named


class _Statement(str):
    """The name set by a plain call of `use_backend`; equal to other strings, but an object."""

    __slots__ = ()


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
    elif kernel := _which_kernel(op, name, tensors):
        how = f"{kernel}; {how}" if how else kernel
    return f"{op} runs on {name}: {why}{'; ' + how if how else ''}."


def _explain_run(
    op: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    """`explain` for the ops that go straight to a backend, whose first argument is MLPParams."""
    from mlpkern.mlp.params import MLPParams

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
    environment.require()
    named, source = _named.get(), "use_backend"
    if not named:
        named, source = os.environ.get(ENVIRONMENT_VARIABLE, ""), ENVIRONMENT_VARIABLE
    if named:
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


def _which_kernel(op: str, name: str, tensors: Sequence[torch.Tensor]) -> str:
    """Which of its kernels the backend takes for a call of these tensors, where it has several."""
    module = _load(name)
    return module.which_kernel(op, tensors) if hasattr(module, "which_kernel") else ""


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
