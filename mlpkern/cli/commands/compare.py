"""``mlpkern compare``: a table of runs, and their curves in one picture."""

from __future__ import annotations

import argparse

from mlpkern.cli.flags import add_picture
from mlpkern.cli.values import folder

SUMMARY = "print runs side by side, and draw their curves"
EPILOG = """\
examples:
  mlpkern compare runs/a runs/b
  mlpkern compare runs/* --out curves.png

A line for each run: losses over the whole splits, steps, seconds of training, engine, and the
settings that are not the same in all. With --out the curves of all, over the steps and over time.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda args: bool(args.out))
    parser.add_argument(
        "runs", type=folder, metavar="RUN", nargs="+", help="run folders, two or more"
    )
    add_picture(parser, "draw the curves into this file")


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.output import check_output
    from mlpkern.lm.analysis.compare import compare
    from mlpkern.lm.atomic_write import write_bytes
    from mlpkern.lm.plots import comparison_plot, png, require_matplotlib

    out = check_output(args.out, force=args.force) if args.out else None
    if out:
        require_matplotlib()
    found = compare(args.runs)
    print(found.to_text())
    if out:
        write_bytes(out, png(comparison_plot({run.name: run.rows for run in found.runs})))
        print(f"saved {out}")
    return 0
