"""Side effects and uses of names in an expression of a method."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

_SIZES = ("size", "shape")


def last_name(node: ast.expr) -> str:
    """The name after the last dot of ``node``, or ""."""
    return str(getattr(node, "attr", getattr(node, "id", "")))


def is_path(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


_PLAIN = (
    ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.UnaryOp, ast.BinOp,
    ast.Tuple, ast.List, ast.expr_context, ast.operator, ast.unaryop,
)  # fmt: skip


def harmless(node: ast.expr) -> bool:
    """Whether ``node`` has no side effect, so that it may be evaluated earlier."""
    for part in ast.walk(node):
        size = isinstance(part, ast.Call) and last_name(part.func) in ("len", "size")
        if not size and not isinstance(part, _PLAIN):
            return False
    return True


def is_size(node: ast.AST, name: str) -> bool:
    """Whether ``node`` is ``name.shape``, ``name.size`` or ``len(name)``."""
    if isinstance(node, ast.Attribute):
        return node.attr in _SIZES and _is_name(node.value, name)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len":
        return len(node.args) == 1 and _is_name(node.args[0], name)
    return False


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def reads(tree: ast.AST, name: str) -> int:
    """How often ``name`` occurs other than as the target of an assignment; 10 where unclear."""
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            count += 10 * _is_name(node.target, name)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            count += 10 * (name in node.names)
        elif _is_name(node, name) and not isinstance(node.ctx, ast.Store):  # type: ignore[attr-defined]
            count += 1
    return count


def first_evaluated(statement: ast.stmt) -> Iterator[ast.expr]:
    """The expressions that ``statement`` evaluates before anything else, from the outside in."""
    node: Any = None
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Return, ast.Expr)):
        node = statement.value
    while node is not None:
        yield node
        if isinstance(node, ast.Call) and harmless(node.func):
            node = node.args[0] if node.args else None
        elif isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        elif isinstance(node, ast.BinOp):
            node = node.left
        elif isinstance(node, (ast.Tuple, ast.List)):
            node = node.elts[0] if node.elts else None
        else:
            node = None
