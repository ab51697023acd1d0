"""Hooks of MkDocs: charts of the benchmark as files of the site, the settings as a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parent.parent / "bench" / "results"
SETTINGS = "<!-- the settings of TrainConfig -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The charts of bench/results, under results/."""
    for chart in sorted(RESULTS.glob("*.png")):
        uri = f"results/{chart.name}"
        files.append(File.generated(config, uri, abs_src_path=str(chart)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What each setting means is known at run time only, from where it is declared."""
    if SETTINGS not in markdown:
        return markdown
    from mlpkern import lm

    settings = re.findall(r"^ +(\w+): (.*)$", lm.TrainConfig.__doc__ or "", re.M)
    if len(settings) < 20:
        raise ValueError("the docstring of TrainConfig lists no settings")
    rows = [f"| `{name}` | {meaning} |" for name, meaning in settings]
    return markdown.replace(SETTINGS, "\n".join(["| setting | meaning |", "|---|---|", *rows]))
