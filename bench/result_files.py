"""The files of a result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench import report
from bench.core.case import Unavailable
from bench.core.files import as_json, show, write
from bench.shown.charts import chart_png, ladder_png
from bench.shown.text import machine_name, narrowed, on_gpu


def keep(result: dict[str, Any], out: Path, record: str | None) -> None:
    """Writes the files of a result, and with `record` its copy among the committed ones."""
    files = {"result.json": as_json(result), "table.txt": report.full_text(result).encode()}
    pictures = {"chart": chart_png} | ({} if on_gpu(result) else {"ladder": ladder_png})
    for name, draw in pictures.items():
        try:
            files[f"{name}.png"] = draw(result)
        except Unavailable as error:
            show([f"no {name}: {error}"])
    for name, content in files.items():
        write(out / name, content)
    show(["", f"wrote {', '.join(str(out / name) for name in files)}"])
    if record is not None:
        stem = f"{record or machine_stem(result)}-{result['date'][:10]}"
        endings = {"result.json": ".json", "chart.png": ".png", "ladder.png": "-ladder.png"}
        for name, ending in endings.items():
            if name in files:
                write(report.RESULTS / f"{stem}{ending}", files[name])
        show([f"recorded as {report.RESULTS / stem}.json"])


def machine_stem(result: dict[str, Any]) -> str:
    """How the files of a result begin: "cpu-avx2", "cpu-avx512-as-avx2" where MLPKERN_ISA narrowed
    it, or the name of the GPU as in "nvidia-h200"."""
    if not on_gpu(result):
        machine = result["machine"]
        isas = filter(None, [narrowed(machine), machine["mlpkern_isa"]])
        return f"cpu-{'-as-'.join(isas)}"
    return re.sub(r"[^a-z0-9]+", "-", machine_name(result).lower()).strip("-")
