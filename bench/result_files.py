"""The files of a result, each written atomically."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from bench import report
from bench.core.case import Unavailable
from bench.shown.charts import chart_png, ladder_png
from bench.shown.text import machine_name, on_gpu

HERE = Path(__file__).resolve().parent


def keep(result: dict[str, Any], out: Path, record: str | None) -> None:
    """Writes the files of a result, and with `record` its copy among the committed ones."""
    data = as_json(result)
    files = {"result.json": data, "table.txt": report.full_text(result).encode()}
    pictures = {"chart": chart_png} | ({} if on_gpu(result) else {"ladder": ladder_png})
    for name, draw in pictures.items():
        try:
            files[f"{name}.png"] = draw(result)
        except Unavailable as error:
            show([f"no {name}: {error}"])
    write_folder(out, files)
    show(["", f"wrote {', '.join(str(out / name) for name in files)}"])
    if record is not None:
        stem = f"{record or machine_stem(result)}-{result['date'][:10]}"
        named = {f"{stem}.json": data}
        endings = {"chart.png": ".png", "ladder.png": "-ladder.png"}
        named |= {stem + end: files[name] for name, end in endings.items() if name in files}
        write_folder(HERE / "results", named)
        show([f"recorded as {HERE / 'results' / stem}.json"])


def keep_data(result: dict[str, Any], path: Path) -> None:
    """Writes the JSON alone, atomically, while the run goes on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(as_json(result))
    os.replace(temporary, path)


def as_json(result: dict[str, Any]) -> bytes:
    return (json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def machine_stem(result: dict[str, Any]) -> str:
    """How the files of a result begin: "cpu", or the name of the GPU as in "nvidia-h200"."""
    if not on_gpu(result):
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", machine_name(result).lower()).strip("-")


def show(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files that appear under `folder` only when all of them are complete.

    A new folder appears at once by one rename; in an existing one each file is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        complete = Path(temporary) / "complete"
        complete.mkdir()
        for name, content in files.items():
            (complete / name).write_bytes(content)
        if not folder.exists():
            complete.rename(folder)
            return
        for name in files:
            os.replace(complete / name, folder / name)
