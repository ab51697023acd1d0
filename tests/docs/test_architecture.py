"""The layers of docs/development/architecture.md are those of the imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mlpkern"
PAGE = ROOT / "docs" / "development" / "architecture.md"
COMPILED = ("mlpkern._C", "mlpkern._cuda")


def layers() -> list[list[str]]:
    """The files and folders of each line of the page's list, from above."""
    fence = re.search(r"^```\nmlpkern/(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert fence
    found = []
    for line in fence[1].splitlines():
        path = line.split()[0].removeprefix("mlpkern/")
        names, _, ending = path.strip("{").partition("}")
        found.append([name if "." in name else name + ending for name in names.split(",")])
    return found


def part(module: str) -> str:
    """The file or folder directly in mlpkern that holds ``module``, or a name of the package."""
    name = [*module.split("."), ""][1]
    if name and (PACKAGE / name / "__init__.py").is_file():
        return name
    return f"{name}.py" if (PACKAGE / f"{name}.py").is_file() else "__init__.py"


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, but for what only a type checker does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    never = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: list[str] = []
    for node in (node for node in ast.walk(tree) if id(node) not in never):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    own = [name for name in names if name.split(".")[0] == "mlpkern"]
    return {part(name) for name in own if not name.startswith(COMPILED)}


def test_every_part_of_the_package_has_its_line():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    files = {path.name for path in PACKAGE.glob("*.py")}
    assert sorted(name for line in layers() for name in line) == sorted(folders | files)


def test_no_import_leads_up():
    place = {name: i for i, line in enumerate(layers()) for name in line}
    upward = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        own = place[relative.parts[0]]
        upward += [f"{relative}: {name}" for name in imports(path) if place[name] < own]
    assert upward == []
