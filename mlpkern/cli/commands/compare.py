"""The command ``mlpkern compare``: a table of runs, and their curves in one picture."""

from __future__ import annotations

import argparse

from mlpkern.cli.output import check_output
from mlpkern.lm import plots
from mlpkern.lm.analysis.compare import compare
from mlpkern.lm.atomic_write import write_bytes

__all__ = ["compare_command"]


def compare_command(args: argparse.Namespace) -> int:
    """``mlpkern compare``."""
    out = check_output(args.out, force=args.force) if args.out else None
    if out:
        plots.require_matplotlib()
    found = compare(args.runs)
    print(found.to_text())
    if out:
        figure = plots.comparison_plot({run.name: run.rows for run in found.runs})
        write_bytes(out, plots.png(figure))
        print(f"saved {out}")
    return 0
