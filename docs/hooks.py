"""Hook of MkDocs: the charts of bench/results are files of the site, under results/."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parent.parent / "bench" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for chart in sorted(RESULTS.glob("*.png")):
        uri = f"results/{chart.name}"
        files.append(File.generated(config, uri, abs_src_path=str(chart)))
    return files
