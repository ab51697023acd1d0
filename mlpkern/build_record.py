"""The record that setup.py writes about the native build; its docstring lists the keys.

setup.py loads this file alone, so it may import nothing of the package.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("_build_info.json")
SOURCES = (".cpp", ".h", ".cu", ".cuh", ".txt", ".map")


def sources(root: Path) -> str:
    """A hash of all that the native libraries are built from, in the tree at ``root``."""
    files = [root / "CMakeLists.txt", *(p for p in (root / "csrc").rglob("*") if p.is_file())]
    found = hashlib.sha256()
    for path in sorted(path for path in files if path.suffix in SOURCES):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:16]


def read(path: Path = PATH) -> dict[str, Any]:
    """The record, or {} if there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
