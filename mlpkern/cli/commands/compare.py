"""``mlpkern compare``: a table of runs, and their curves in one picture."""

from __future__ import annotations

import argparse
import sys

from mlpkern.cli.flags import add_picture
from mlpkern.cli.values import folder, path

SUMMARY = "print runs side by side, and draw their curves"
EPILOG = """\
examples:
  mlpkern compare runs/a runs/b
  mlpkern compare runs --out curves.png           all runs in a folder
  mlpkern compare runs/2026* runs/sweep/best --csv runs.csv

A line for each run: losses over the whole splits, steps, seconds of training, engine, and the
settings that are not the same in all. With --out the curves of all, over the steps and over time.
Sweeps and other folders among them are named on standard error and left out.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda args: bool(args.out or args.csv))
    parser.add_argument("runs", type=folder, metavar="RUN", nargs="+",
                        help="run folders, two or more; or a folder that holds them")  # fmt: skip
    parser.add_argument("--csv", type=path, metavar="CSV", help="write the table into this file")
    add_picture(parser, "draw the curves into this file")


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.output import check_output
    from mlpkern.lm.analysis.compare import compare, runs_among
    from mlpkern.lm.atomic_write import write_bytes
    from mlpkern.lm.plots import comparison_plot, png, require_matplotlib

    table = check_output(args.csv, force=args.force, flag="--csv") if args.csv else None
    out = check_output(args.out, force=args.force) if args.out else None
    if out:
        require_matplotlib()
    runs, left_out = runs_among(args.runs)
    for line in left_out:
        print(f"mlpkern compare: {line}", file=sys.stderr)
    found = compare(runs)
    print(found.to_text())
    if table:
        write_bytes(table, found.to_csv().encode())
        print(f"saved {table}")
    if out:
        logs = {run.name: run.rows for run in found.runs}
        write_bytes(out, png(comparison_plot(logs, title=found.title)))
        print(f"saved {out}")
    return 0
