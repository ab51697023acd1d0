"""Where a method applies a tanh or a flatten to a layer's output, or a cross-entropy.

They are found by syntax alone, in two forms: nested calls, ``torch.tanh(self.l1(x))``, and two
statements in a row, ``h = self.l1(x)`` and ``h = torch.tanh(h)``, if nothing else can see the first
value. The rewritten calls keep the order of evaluation, so branches, loops, prints and exceptions
of the method need no analysis.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import CodeType
from typing import Any

from mlpkern.fusing.rewriting import deferred
from mlpkern.fusing.rewriting.syntax import (
    first_evaluated,
    harmless,
    is_path,
    is_size,
    last_name,
    reads,
)

#: The names that a rewritten method calls.
NAMES = {f"_mlpkern_{f.__name__}": f for f in (
    deferred.apply, deferred.linear, deferred.loss, deferred.rows
)}  # fmt: skip

_DEFERRED_BY = {"tanh": "linear", "tanh_": "linear", "view": "rows", "reshape": "rows",
                "flatten": "rows", "unbind": "rows"}  # fmt: skip
_CATS = ("cat", "concat", "concatenate")
_KEYWORDS = ("dim", "start_dim", "end_dim")
_HIDDEN = {"locals", "vars", "eval", "exec", "dir"}  # they read variables without naming them


@dataclass(frozen=True)
class Site:
    """One place: the deferred call (linear, rows or loss), its layer, and the function after it."""

    kind: str
    layer: ast.expr | None
    after: str
    functions: tuple[ast.expr, ...]  # they must be those of torch


@dataclass(frozen=True)
class _Use:
    """A call to fuse with the layer whose output is ``operand``."""

    kind: str
    after: str
    operand: ast.expr
    rest: tuple[ast.expr, ...]
    calls: tuple[ast.Call, ...]  # those to rewrite as functions


def rewrite(tree: ast.FunctionDef, code: CodeType) -> list[Site]:
    """The sites in ``tree``, the tree of ``code``; makes ``tree`` call the functions of `NAMES`."""
    found = _Finder(tree, code)
    _Rewriter(found).visit(tree)
    ast.fix_missing_locations(tree)
    return found.sites


def loops(tree: ast.FunctionDef) -> dict[str, ast.expr]:
    """The variables of the ``for`` loops, and what they run over."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name):
            found[node.target.id] = node.iter
    return found


class _Finder:
    def __init__(self, tree: ast.FunctionDef, code: CodeType) -> None:
        self.sites: list[Site] = []
        self.layers: dict[ast.Call, str] = {}
        self.functions: set[ast.Call] = set()
        self.losses: set[ast.Call] = set()
        self._tree = tree
        self._roots = {*code.co_varnames[:1], *loops(tree)} if code.co_argcount else set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                self._nested(node)
        hidden = _HIDDEN & {name.id for name in ast.walk(tree) if isinstance(name, ast.Name)}
        if hidden or any(type(node).__name__ in ("Try", "TryStar") for node in ast.walk(tree)):
            return
        self._private = set(code.co_varnames) - set(code.co_cellvars)
        for node in ast.walk(tree):
            for name in ("body", "orelse"):
                block = getattr(node, name, None)
                for one, other in pairwise(block if isinstance(block, list) else ()):
                    self._adjacent(one, other)

    def _nested(self, node: ast.Call) -> None:
        if last_name(node.func) == "cross_entropy" and is_path(node.func):
            self.losses.add(node)
            self.sites.append(Site("loss", None, "cross_entropy", (node.func,)))
        for use in _uses(node):
            if self._is_layer(use.operand):
                self._add(use, use.operand)

    def _adjacent(self, one: ast.stmt, other: ast.stmt) -> None:
        """``name = layer(x)`` right before a statement that begins with a use of ``name``."""
        if not (isinstance(one, ast.Assign) and len(one.targets) == 1):
            return
        target = one.targets[0]
        if not (isinstance(target, ast.Name) and target.id in self._private):
            return
        if not self._is_layer(one.value) or one.value in self.layers:
            return
        name = target.id
        again = isinstance(other, ast.Assign) and len(other.targets) == 1
        again = again and getattr(other.targets[0], "id", "") == name  # type: ignore[attr-defined]
        count = reads(other, name)
        if not again and count != reads(self._tree, name):
            return
        for node in first_evaluated(other):
            for use in _uses(node) if isinstance(node, ast.Call) else ():
                if not (isinstance(use.operand, ast.Name) and use.operand.id == name):
                    continue
                sizes = sum(is_size(part, name) for rest in use.rest for part in ast.walk(rest))
                if count == 1 + sizes and (sizes == 0 or use.kind == "rows"):
                    self._add(use, one.value)
                    return

    def _add(self, use: _Use, layer: Any) -> None:
        self.layers[layer] = use.kind
        self.functions.update(use.calls)
        functions = tuple(call.func for call in use.calls)
        self.sites.append(Site(use.kind, layer.func, use.after, functions))

    def _is_layer(self, node: ast.expr) -> bool:
        """Whether ``node`` calls an attribute of ``self`` or a loop variable with one argument."""
        if not (isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords):
            return False
        root: Any = node.func
        while isinstance(root, (ast.Attribute, ast.Subscript)):
            root = root.value
        known = isinstance(root, ast.Name) and root.id in self._roots
        return known and harmless(node.func) and not isinstance(node.args[0], ast.Starred)


class _Rewriter(ast.NodeTransformer):
    def __init__(self, found: _Finder) -> None:
        self._found = found

    def visit_Call(self, node: ast.Call) -> ast.AST:
        kind = self._found.layers.get(node)
        function = node in self._found.functions
        loss = node in self._found.losses
        self.generic_visit(node)
        if kind or function:
            name = kind or "apply"
            call = ast.Call(_name(name), [node.func, *node.args], node.keywords)
            return ast.copy_location(call, node)
        if loss:
            node.func = ast.copy_location(ast.Call(_name("loss"), [node.func], []), node.func)
        return node


def _name(name: str) -> ast.Name:
    return ast.Name(f"_mlpkern_{name}", ast.Load())


def _uses(node: ast.Call) -> Iterator[_Use]:
    """``node`` as a use of a layer's output: ``e.view(...)`` or ``torch.flatten(e, ...)``."""
    name, rest = last_name(node.func), (*node.args, *(k.value for k in node.keywords))
    if not all(map(harmless, rest[1:])) or not all(k.arg in _KEYWORDS for k in node.keywords):
        return
    if name in _CATS and node.args and is_path(node.func) and isinstance(node.args[0], ast.Call):
        for use in _uses(node.args[0]):
            if use.after == "unbind":
                yield _Use("rows", name, use.operand, use.rest, (node, *use.calls))
        return
    kind = _DEFERRED_BY.get(name)
    if kind is None:
        return
    if kind == "linear" and len(rest) > 1:
        return
    method = all(map(harmless, rest[:1])) if kind == "rows" else not rest
    if method and isinstance(node.func, ast.Attribute):
        yield _Use(kind, name, node.func.value, rest, ())
    if node.args and is_path(node.func):
        yield _Use(kind, name, node.args[0], rest[1:], (node,))
