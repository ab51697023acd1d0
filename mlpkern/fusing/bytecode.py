"""Which attributes of its module a function uses, read off its bytecode.

Only the layer swaps of ``fuse`` need this: a swapped layer computes something else, so no code but
the traced forward may call it. Reading the parameters or sizes of a layer is harmless.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from mlpkern.fusing.rewriting.classes import is_rewritten

#: Modules whose own code calls its children in order, or not at all.
TRUSTED = (nn.Sequential, nn.ModuleList, nn.ModuleDict, DataParallel, DistributedDataParallel)

_DATA = frozenset(
    ("weight", "bias", "in_features", "out_features", "num_embeddings", "embedding_dim")
) | {"parameters", "named_parameters", "buffers", "state_dict", "load_state_dict", "training"}
_GENERIC = frozenset(("children", "modules", "named_children", "named_modules", "get_submodule"))
_GENERIC |= {"_modules", "__dict__", "__getattr__", "__getattribute__", "apply"}
_LOOKUPS = frozenset(("getattr", "vars", "attrgetter", "methodcaller", "eval", "exec"))
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_AFTER_SELF = (*_ATTRIBUTES, "STORE_ATTR", "DELETE_ATTR", "LOAD_SUPER_ATTR")
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip


@dataclass(frozen=True)
class Attribute:
    """A use of an attribute beyond reading its data."""

    name: str
    own: bool  # of the function's first argument itself, as in ``self.name``
    called: bool  # called at once, as in ``self.name(x)``


@dataclass(frozen=True)
class Uses:
    """The attributes that a function uses; ``generic``: how it may reach every layer, or ""."""

    attributes: frozenset[Attribute]
    generic: str


@functools.lru_cache(maxsize=4096)
def uses(code: CodeType, method: bool = True) -> Uses:
    """The attributes that the code of a function uses, the functions inside it included.

    The first argument of a ``method`` (or a hook) is a module.
    """
    attributes: set[Attribute] = set()
    own = code.co_varnames[0] if method and code.co_argcount else None
    generic = _scan(code, own, attributes)
    return Uses(frozenset(attributes), generic)


def _scan(code: CodeType, own: str | None, attributes: set[Attribute]) -> str:
    generic = ""
    noise = ("EXTENDED_ARG", "PRECALL", "CACHE")
    steps = [step for step in dis.get_instructions(code) if step.opname not in noise]
    for i, step in enumerate(steps):
        name = step.argval
        after = steps[i + 1] if i + 1 < len(steps) else step
        if step.opname in _ATTRIBUTES:
            before = steps[i - 1]
            of_global = before.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF")
            if name in _GENERIC and not (name == "apply" and of_global and not _loads(before, own)):
                generic = f"by {name}"
            if after.opname not in _ATTRIBUTES or after.argval not in _DATA:
                called = step.opname == "LOAD_METHOD" or "NULL|self" in step.argrepr
                attributes.add(Attribute(name, _loads(before, own), called))
        elif _passes_on(step, after, own):
            generic = "by passing itself on"
        elif step.opname.startswith("LOAD_") and isinstance(name, str) and name in _LOOKUPS:
            generic = f"by {name}"
    for const in code.co_consts:
        if isinstance(const, CodeType):
            generic = _scan(const, own, attributes) or generic
    return generic


def _loads(step: dis.Instruction, own: str | None) -> bool:
    """Whether the variable ``own`` is on top of the stack after ``step``."""
    loaded = step.argval[-1] if isinstance(step.argval, tuple) and step.argval else step.argval
    variable = "FAST" in step.opname or step.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF")
    return own is not None and "LOAD" in step.opname and variable and loaded == own


def _passes_on(step: dis.Instruction, after: dis.Instruction, own: str | None) -> bool:
    """Whether ``step`` loads the variable ``own`` for anything but one of its attributes."""
    if step.opname == "LOAD_FAST_LOAD_FAST" and step.argval[0] == own:
        return True
    return _loads(step, own) and after.opname not in _AFTER_SELF


@dataclass(frozen=True)
class Function:
    """A function that can reach a module: its name in messages, its code, and its uses."""

    name: str
    code: CodeType
    uses: Uses


def functions(module: nn.Module) -> list[Function]:
    """The methods, hooks and function attributes of ``module``."""
    cls: Any = type(module)
    found = list(_methods(cls))
    for name, value in _attributes(module):
        found += _as_functions(name, value, method=isinstance(value, MethodType))
    return found + hooks(module)


def hooks(module: nn.Module) -> list[Function]:
    """The functions that are registered on ``module`` as hooks."""
    found = []
    for kind in _HOOKS:
        for hook in getattr(module, kind).values():
            held = hook if isinstance(hook, _CALLABLES) else type(hook).__call__
            found += _as_functions("a hook", held, method=True)
    return found


def held_by_functions(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that function attributes and hooks of ``module`` keep, with their names."""
    kept = [(name, value) for name, value in _attributes(module)]
    kept += [("a hook", hook) for kind in _HOOKS for hook in getattr(module, kind).values()]
    for name, value in kept:
        if isinstance(value, functools.partial):
            parts = [*value.args, *value.keywords.values()]
        else:
            cells = [cell for cell in getattr(value, "__closure__", None) or () if _filled(cell)]
            parts = [cell.cell_contents for cell in cells]
            parts += getattr(value, "__defaults__", None) or ()
            parts += (getattr(value, "__kwdefaults__", None) or {}).values()
        yield from ((name, part) for part in parts if isinstance(part, nn.Module))


_CALLABLES = (FunctionType, MethodType, functools.partial)


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(module).items() if isinstance(value, _CALLABLES)]


@functools.lru_cache(maxsize=1024)
def _methods(cls: type) -> tuple[Function, ...]:
    found: list[Function] = []
    for base in cls.__mro__:
        if base is nn.Module:
            break
        if base in TRUSTED or is_rewritten(base):  # the base of that has the same methods
            continue
        for name, value in vars(base).items():
            if name != "__init__":
                found += _as_functions(name, value, method=not isinstance(value, staticmethod))
    return tuple(found)


def _as_functions(name: str, value: Any, *, method: bool) -> list[Function]:
    codes = [function.__code__ for function in _inside(value)]
    return [Function(name, code, uses(code, method)) for code in codes]


def _inside(value: Any, depth: int = 4) -> Iterator[FunctionType]:
    """The functions that ``value`` wraps: a decorator keeps the wrapped one in a cell."""
    if depth == 0:
        return
    if isinstance(value, FunctionType):
        if not str(value.__globals__.get("__name__")).startswith("torch."):
            yield value
        cells = [cell for cell in value.__closure__ or () if _filled(cell)]
        for inner in [*(cell.cell_contents for cell in cells), getattr(value, "__wrapped__", None)]:
            if isinstance(inner, _CALLABLES):
                yield from _inside(inner, depth - 1)
        return
    for part in ("__func__", "func", "fget", "fset", "fdel"):
        inner = getattr(value, part, None) if not isinstance(value, type) else None
        if inner is not None:
            yield from _inside(inner, depth - 1)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
