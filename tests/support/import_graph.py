"""Who imports whom in a package, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]  # module -> the modules of the package that it imports


def import_graph(package: Path) -> Graph:
    """Every module of ``package``, also with the imports inside functions.

    What only a type checker imports is left out. A package counts by its ``__init__.py``, a
    compiled module by its stub.
    """
    sources = sorted([*package.rglob("*.py"), *package.rglob("*.pyi")])
    paths = {_name(path, package): path for path in sources}
    graph = {}
    for module, path in paths.items():
        names = imported(path)
        found = {name if name in paths else name.rpartition(".")[0] for name in names}
        graph[module] = {name for name in found if name in paths} - {module}
    return graph


def imported(path: Path) -> set[str]:
    """The absolute names of what a file imports; ``from a import b`` gives ``a.b``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    never = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in never:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def circles(graph: Graph) -> Iterator[list[str]]:
    """The groups of modules that reach each other, and modules that reach themselves."""
    reach = {module: _reachable(graph, module) for module in graph}
    seen: set[str] = set()
    for module in graph:
        if module not in seen and module in reach[module]:
            group = sorted(m for m in reach[module] if module in reach[m])
            seen |= set(group)
            yield group


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    left = [*graph[start]]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += graph[module]
    return found


def _name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
