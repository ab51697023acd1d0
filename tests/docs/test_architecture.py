"""The layers of docs/development/architecture.md are those of the imports."""

from __future__ import annotations

import re
from pathlib import Path

from support.import_graph import import_graph

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mlpkern"
COMPILED = "mlpkern._C"
PAGE = ROOT / "docs" / "development" / "architecture.md"


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


def test_every_part_of_the_package_has_its_line():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    files = {path.name for path in PACKAGE.glob("*.py")}
    assert sorted(name for line in layers() for name in line) == sorted(folders | files)


def test_no_import_leads_up():
    place = {name: i for i, line in enumerate(layers()) for name in line}
    upward = [
        f"{module} imports {other}"
        for module, others in import_graph(PACKAGE).items()
        for other in others
        if other != COMPILED and place[part(other)] < place[part(module)]
    ]
    assert upward == []
