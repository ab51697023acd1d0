"""``mlpkern runs``: what is in a folder of runs."""

from __future__ import annotations

import argparse

from mlpkern.cli.values import folder, path

SUMMARY = "list runs, sweeps and populations"
EPILOG = """\
examples:
  mlpkern runs                          what is in runs/, the oldest first
  mlpkern runs DIR --sort dev           the lowest dev loss first
  mlpkern runs --csv runs.csv

A line for each run: when it was last written to, its words, steps done of all, dev loss at the end,
the lowest dev loss, whether it has finished, and the preset nearest to its settings with those that
differ. Below, how an interrupted run goes on, and which folders are damaged or something else.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda args: bool(args.csv))
    add = parser.add_argument
    add("folder", nargs="?", type=folder, default="runs", metavar="DIR",
        help="folder of runs (runs)")  # fmt: skip
    add("--sort", choices=("date", "dev", "name"), default="date",
        help="date (default): the oldest first; dev: the lowest first; name")  # fmt: skip
    add("--csv", type=path, metavar="CSV", help="write the list into this file")
    add("--force", action="store_true", help="replace a file that is already there")


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.output import check_output
    from mlpkern.lm.analysis.run_list import list_runs, runs_csv, runs_text
    from mlpkern.lm.atomic_write import write_bytes

    table = check_output(args.csv, force=args.force, flag="--csv") if args.csv else None
    found = list_runs(args.folder, sort=args.sort)
    print(runs_text(found) or f"{args.folder}: no runs in it; mlpkern train makes one")
    if table:
        write_bytes(table, runs_csv(found).encode())
        print(f"saved {table}")
    return 0
