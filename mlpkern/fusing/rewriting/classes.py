"""The subclass whose rewritten methods call the fused ops.

It has the name of its base and no other attributes, and ``fuse`` makes it the class of an instance,
as parametrizations do. Copies, replicas and pickles of the instance work without further code.
"""

from __future__ import annotations

import ast
import copyreg
import dis
import functools
from dataclasses import dataclass
from itertools import pairwise
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from mlpkern.fusing.rewriting.sites import NAMES, Site, loops, rewrite
from mlpkern.fusing.rewriting.source import NoSource, Source

_STOCK, _CODES = "_mlpkern_stock", "_mlpkern_codes"

#: The names that show that a method has something to fuse, by the kind of the layer.
TELLING: dict[type | None, set[str]] = {
    nn.Linear: {"tanh", "tanh_"},
    nn.Embedding: {"view", "reshape", "flatten", "cat", "concat", "concatenate"},
    None: {"cross_entropy"},
}


@dataclass(frozen=True)
class Method:
    """A method with sites to fuse: its function and code, and the function with the sites fused."""

    function: FunctionType
    code: CodeType
    new: FunctionType
    sites: tuple[Site, ...]
    loops: dict[str, ast.expr]


class Rewritten(type):
    """The metaclass of the rewritten classes, which are pickled as their base."""


def is_rewritten(cls: type) -> bool:
    """Whether `rewritten` made ``cls``."""
    return _STOCK in vars(cls)


def stock(cls: type) -> type:
    """The base that ``cls`` was made from; ``cls`` itself if it was not rewritten."""
    made_of: type = vars(cls).get(_STOCK, cls)
    return made_of


def rewritten(cls: type, found: list[Method] | None = None) -> type:
    """The subclass of ``cls`` that calls the fused ops; ``cls`` itself if there can be none.

    ``found``: the `methods` of ``cls``, if they are known.
    """
    found = methods(cls)[0] if found is None else found
    if not found or obstacle(cls):
        return cls
    codes = [method.code for method in found]
    known: type
    for known in cls.__subclasses__():
        if vars(known).get(_CODES) == codes:
            return known
    names: dict[str, Any] = {method.function.__name__: _call(cls, method) for method in found}
    names |= {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return Rewritten(cls.__name__, (cls,), {**names, _STOCK: cls, _CODES: codes})


def obstacle(cls: type) -> str:
    """Why ``cls`` can have no rewritten subclass, or ""."""
    if type(cls) is not type:
        return f"its class has a metaclass, {type(cls).__name__}"
    if hasattr(cls.__init_subclass__, "__func__"):
        return "its class has an __init_subclass__"
    for name, function in _written(cls).items():
        if _asks_for_class(function.__code__):
            return f"{name} asks for its class, which would be another one"
    return ""


def _asks_for_class(code: CodeType, own: str = "") -> bool:
    """Whether ``code`` uses ``type(self)`` or ``self.__class__`` beyond its name."""
    own = own or (code.co_varnames[0] if code.co_argcount else "")
    noise = ("EXTENDED_ARG", "PRECALL", "CACHE")
    steps = [step for step in dis.get_instructions(code) if step.opname not in noise]
    for i, (first, second) in enumerate(pairwise(steps)):
        one, other = (s.opname.startswith("LOAD_") and s.argval == own for s in (first, second))
        of_type = first.opname == "LOAD_GLOBAL" and first.argval == "type" and other
        of_attribute = one and second.argval == "__class__"
        after = steps[i + (3 if of_type else 2)].argval if of_type or of_attribute else "__name__"
        if after not in ("__name__", "__qualname__"):
            return True
    return any(_asks_for_class(c, own) for c in code.co_consts if isinstance(c, CodeType))


def _written(cls: type) -> dict[str, FunctionType]:
    """The methods of ``cls`` that its author wrote, without the special ones such as __len__."""
    known = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    found = {}
    for name, function in known.items():
        if type(function) is FunctionType and not name.startswith("__") and name != "extra_repr":
            package = str(function.__globals__.get("__name__")).partition(".")[0]
            if package not in ("torch", "mlpkern"):
                found[name] = function
    return found


def tells(cls: type, layers: set[type]) -> bool:
    """Whether the code of ``cls`` names a function that may be fused with one of ``layers``."""
    names = {name for f in _written(cls).values() for name in f.__code__.co_names}
    return any(
        (layer is None or layer in layers) and not names.isdisjoint(telling)
        for layer, telling in TELLING.items()
    )


def methods(cls: type) -> tuple[list[Method], str]:
    """The methods of ``cls`` with something to fuse, and why another one cannot be read, or ""."""
    found = []
    problem = ""
    telling = set().union(*TELLING.values())
    for function in _written(cls).values():
        if telling.isdisjoint(function.__code__.co_names):
            continue
        try:
            source = Source(function)
        except NoSource as reason:
            problem = str(reason)
            continue
        code = function.__code__
        sites = rewrite(source.tree, code)
        if sites:
            new = source.function(NAMES)
            found.append(Method(function, code, new, tuple(sites), loops(source.tree)))
    return found, problem


def _call(cls: type, method: Method) -> Any:
    """The method of the subclass: the rewritten one unless ``cls`` got another method since."""
    name, function, code, new = method.function.__name__, method.function, method.code, method.new

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        current = getattr(cls, name)
        same = current is function and function.__code__ is code
        return (new if same else current)(self, *args, **kwargs)

    return call


def _reduce(cls: type) -> Any:
    return (rewritten, (stock(cls),)) if is_rewritten(cls) else cls.__qualname__


copyreg.pickle(Rewritten, _reduce)
