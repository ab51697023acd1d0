"""Files that appear complete, and lines that appear at once.

Only the standard library is imported: bench/gpu.sh uses it too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def as_json(result: dict[str, Any]) -> bytes:
    return (json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def keep_data(result: dict[str, Any], path: Path) -> None:
    """Writes a result as JSON, atomically."""
    write(path, as_json(result))


def show(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)
