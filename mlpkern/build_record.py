"""What setup.py wrote down about the native build; its docstring lists the keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("_build_info.json")


def read(path: Path = PATH) -> dict[str, Any]:
    """The record, or {} for a package that was never built or whose record cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
