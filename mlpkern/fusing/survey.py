"""Which functions besides the forward may call a layer: the objections to swapping it.

A swapped layer computes something else than before, so the proof must cover every function that
can reach it: the methods, hooks and function attributes of the module that has it and of all
modules above. A function is harmless if its code never names the layer, if it only calls a whole
Sequential that contains the layer, or if it is a forward whose trace shows that it does not call
the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from mlpkern.fusing.bytecode import Function, Uses, functions, held_by_functions, hooks
from mlpkern.fusing.rewriting.classes import Method
from mlpkern.fusing.rules import REPLACES
from mlpkern.tracing.trace import Trace

CONTAINERS = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Place:
    """A layer and its place: ``parent._modules[key]``, called ``name`` in the model."""

    name: str
    parent: nn.Module
    key: str
    module: nn.Module


def is_sequential(owner: nn.Module) -> bool:
    """Whether ``owner`` calls its children in order and nothing else."""
    return type(owner).forward is nn.Sequential.forward and "forward" not in owner.__dict__


def places(name: str, owner: nn.Module, *, lists: bool = True) -> Iterator[Place]:
    """The layers ``owner`` calls itself: its children, and those in its lists and dictionaries."""
    prefix = f"{name}." if name else ""
    for key, child in owner._modules.items():
        if child is None:
            continue
        if lists and type(child) in CONTAINERS:
            yield from places(prefix + key, child)
        else:
            yield Place(prefix + key, owner, key, child)


class Survey:
    """The modules of ``model`` by name, their holders, and the traces of their forwards."""

    def __init__(self, model: nn.Module) -> None:
        self.owners = {
            name: module
            for name, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)  # it does not run its Python code
        }
        self._names = {module: name for name, module in self.owners.items()}
        self._above: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
        self._traces: dict[nn.Module, Trace] = {}
        self._functions: dict[nn.Module, list[Function]] = {}
        self._named_by_hooks: set[str] = set()
        self._held_by_functions: dict[nn.Module, str] = {}
        self.methods: dict[type, tuple[list[Method], str]] = {}  # what can be fused in them
        self.done: set[str] = set()  # what runs as one op in the code of the modules
        self.unread: dict[str, str] = {}  # why the code of a module is not rewritten
        for owner in self.owners.values():
            for key, child in owner._modules.items():
                if child is not None:
                    self._above.setdefault(child, []).append((owner, key))
            for key in vars(owner).keys() - _OF_EVERY_MODULE:
                for held in _modules_in(vars(owner)[key]):
                    self._above.setdefault(held, []).append((owner, key))
            for hook in hooks(owner):
                self._named_by_hooks |= {use.name for use in hook.uses.attributes if not use.own}
            for function, held in held_by_functions(owner):
                self._held_by_functions[held] = f"{function} of {self.who(owner)}"

    def trace(self, module: nn.Module) -> Trace:
        """The trace of the forward of ``module``, made once."""
        if module not in self._traces:
            self._traces[module] = Trace(module)
        return self._traces[module]

    def who(self, module: nn.Module) -> str:
        """What to call ``module`` in a message."""
        return self._names.get(module) or type(module).__name__

    def objection_in_sequential(self, owner: nn.Module, pair: tuple[Place, ...]) -> str:
        """Why code may call the layers of the Sequential ``owner`` one by one, or ""."""
        keeper = self._held_by_functions.get(owner)
        if keeper:
            return f"{keeper} keeps what they are in"
        whole = self._held_as(owner)
        parts = {(owner, place.key) for place in pair}
        return self._objection(owner, None, whole, parts, pair)

    def objection_in_forward(self, owner: nn.Module, group: tuple[Place, ...]) -> str:
        """Why code besides the forward of ``owner`` may call its layers ``group``, or ""."""
        parts = {(place.parent, place.key) for place in group}
        for place in group:
            if place.parent is not owner:
                parts |= self._held_as(place.parent)
        return self._objection(owner, owner, set(), parts, group)

    def _objection(
        self,
        owner: nn.Module,
        home: nn.Module | None,
        whole: set[tuple[nn.Module, str]],
        parts: set[tuple[nn.Module, str]],
        group: tuple[Place, ...],
    ) -> str:
        """Why a function around ``owner`` may call its layers, or ""; not the forward of ``home``.

        ``whole`` are the attributes that may be called but not taken, ``parts`` those that may not
        even be called.
        """
        by_hook = self._named_by_hooks & {name for _, name in whole | parts}
        if by_hook:
            return f"{group[0].key} is also used by a hook (it names {min(by_hook)})"
        for module in self._at_or_above(owner):
            for function in self._functions_of(module):
                if function.name == "forward" and module is home:
                    continue
                how = _reach(module, function.uses, whole, parts)
                if not how:
                    continue
                if function.name != "forward":
                    name = function.name
                    method = name if module is owner else f"{name} of {self.who(module)}"
                    return f"{group[0].key} is also used by {method} ({how})"
                reason = self._objection_of_forward(module, group, how)
                if reason:
                    return reason
        return ""

    def _objection_of_forward(self, module: nn.Module, group: tuple[Place, ...], how: str) -> str:
        trace, who = self.trace(module), self.who(module)
        doubt = trace.failure or trace.open
        if doubt:
            return f"the forward of {who} may call them one by one ({how}): {doubt}"
        if any(trace.calls(place.module) for place in group):
            return f"the forward of {who} calls them one by one"
        return ""

    def _held_as(self, module: nn.Module) -> set[tuple[nn.Module, str]]:
        """The attributes through which code reaches ``module``, also through lists that hold it."""
        found: set[tuple[nn.Module, str]] = set()
        waiting, seen = [module], {module}
        while waiting:
            for owner, key in self._above.get(waiting.pop(), ()):
                if key.isidentifier():
                    found.add((owner, key))
                if isinstance(owner, (nn.Sequential, *CONTAINERS)) and owner not in seen:
                    seen.add(owner)
                    waiting.append(owner)
        return found

    def _at_or_above(self, module: nn.Module) -> list[nn.Module]:
        found = {module: None}
        waiting = [module]
        while waiting:
            for owner, _ in self._above.get(waiting.pop(), ()):
                if owner not in found:
                    found[owner] = None
                    waiting.append(owner)
        return list(found)

    def _functions_of(self, module: nn.Module) -> list[Function]:
        if module not in self._functions:
            self._functions[module] = functions(module)
        return self._functions[module]


_OF_EVERY_MODULE = vars(nn.Module()).keys() | {REPLACES}


def _modules_in(value: object, depth: int = 3) -> Iterator[nn.Module]:
    """The modules that ``value`` is or has as items; only the code of its owner knows of them."""
    if isinstance(value, nn.Module):
        yield value
    elif depth and isinstance(value, (list, tuple, set, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _modules_in(item, depth - 1)


def _reach(
    module: nn.Module,
    code: Uses,
    whole: set[tuple[nn.Module, str]],
    parts: set[tuple[nn.Module, str]],
) -> str:
    """How a function of ``module`` reaches the layers, in words, or ""."""
    if code.generic:
        return f"it reaches every layer {code.generic}"
    for use in code.attributes:
        for attributes, harmless in ((whole, use.called), (parts, False)):
            owners = [owner for owner, name in attributes if name == use.name]
            if use.own:
                owners = [owner for owner in owners if owner is module]
            if owners and not harmless:
                return f"it names {use.name}"
    return ""
