"""The source of a function as a syntax tree, and a function compiled from such a tree."""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
from collections.abc import Iterator
from types import CellType, CodeType, FunctionType
from typing import Any


class NoSource(Exception):
    """The tree of a function cannot be known; the message is the reason."""


class Source:
    """The ``tree`` of a function, in the tree of the file or notebook cell it was written in.

    The whole file is parsed, since the code around a function decides how it is compiled. Compiled
    again, it must give the very code of ``function``; that reveals a file that was edited after its
    import and a decorator that wraps the function or changes its code.
    """

    def __init__(self, function: FunctionType) -> None:
        self._function = function
        code = function.__code__
        try:
            text = "".join(inspect.findsource(code)[0])
            same = any(_same(code, c) for c in _codes(text, code.co_filename, _flags(code)))
            self._file = ast.parse(text)
        except (OSError, TypeError, ValueError, SyntaxError, RecursionError):
            raise NoSource("the source of its code is not at hand") from None
        found = [
            (block, node)
            for block in _blocks(self._file)
            for node in block
            if isinstance(node, ast.FunctionDef)
            and node.name == code.co_name
            and min([node.lineno, *(d.lineno for d in node.decorator_list)]) == code.co_firstlineno
        ]
        if not same or len(found) != 1:
            raise NoSource("its source is not what runs: the file or the code was changed")
        self._block, self.tree = found[0]

    def function(self, names: dict[str, Any]) -> FunctionType:
        """A function compiled from the current ``tree``, which may also use ``names``."""
        stock = self._function
        self.tree.decorator_list = []
        outer: Any = ast.parse(f"def _mlpkern({', '.join(names)}): pass").body[0]
        outer.body = [self.tree]
        self._block[self._block.index(self.tree)] = ast.copy_location(outer, self.tree)
        filename, flags = stock.__code__.co_filename, _flags(stock.__code__)
        file = compile(self._file, filename, "exec", flags=flags, dont_inherit=True)
        around = next(code for code in _inside(file) if code.co_name == "_mlpkern")
        code = next(code for code in _inside(around) if code.co_name == self.tree.name)
        cells = dict(zip(stock.__code__.co_freevars, stock.__closure__ or (), strict=True))
        cells |= {name: CellType(value) for name, value in names.items()}
        closure = tuple(cells[name] for name in code.co_freevars)
        made = FunctionType(code, stock.__globals__, stock.__name__, stock.__defaults__, closure)
        made.__kwdefaults__ = stock.__kwdefaults__
        return made


def _blocks(node: ast.AST) -> Iterator[list[Any]]:
    """The lists of statements in ``node``."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block
            for child in block:
                yield from _blocks(child)


@functools.lru_cache(maxsize=4)
def _codes(text: str, filename: str, flags: int) -> list[CodeType]:
    file = compile(text, filename, "exec", flags=flags, dont_inherit=True)
    return list(_inside(file))


def _inside(code: CodeType) -> Iterator[CodeType]:
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield const
            yield from _inside(const)


def _flags(code: CodeType) -> int:
    """The ``from __future__`` imports that ``code`` was compiled with."""
    features = [getattr(__future__, name) for name in __future__.all_feature_names]
    return sum({feature.compiler_flag & code.co_flags for feature in features})


def _same(one: CodeType, other: CodeType) -> bool:
    """Whether two codes are the same but for the lines they stand in."""
    if any(getattr(one, part) != getattr(other, part) for part in _PARTS):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    for a, b in zip(one.co_consts, other.co_consts, strict=True):
        codes = isinstance(a, CodeType) and isinstance(b, CodeType)
        if not (_same(a, b) if codes else type(a) is type(b) and repr(a) == repr(b)):
            return False
    return True


_PARTS = (
    "co_name", "co_firstlineno", "co_code", "co_names", "co_varnames", "co_freevars",
    "co_cellvars", "co_flags", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount",
)  # fmt: skip
