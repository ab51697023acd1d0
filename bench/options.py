"""The command line of bench/run.py, and the cases that it asks for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch

from bench import ROOT
from bench.core.case import DTYPES, Case
from bench.core.jax_process import why_not
from bench.suites import SUITES, Suite


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description="Times mlpkern against stock PyTorch."
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases, no max-autotune")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-jax", action="store_true", help="leave JAX out")
    parser.add_argument("--op", nargs="+", choices=[s.name for s in SUITES], metavar="NAME",
                        help=f"only these of: {', '.join(s.name for s in SUITES)}")  # fmt: skip
    parser.add_argument("--case", metavar="FILTER", help="only cases whose name contains this")
    parser.add_argument("--dtype", choices=list(DTYPES), help="only cases of this dtype")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(),
                        help="what `all threads` means (default: torch's own choice)")  # fmt: skip
    parser.add_argument("--seconds", type=float, metavar="S",
                        help="begin no case after this, autotune none after half")  # fmt: skip
    parser.add_argument("--file", type=Path, metavar="WORDS",
                        help="words for the training at the end (default: embedded)")  # fmt: skip
    parser.add_argument("--reach", type=float, metavar="LOSS",
                        help="its time to this dev loss is taken (default: stock's)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out", metavar="DIR",
                        help="folder for result.json, table.txt and the charts")  # fmt: skip
    parser.add_argument("--record", nargs="?", const="", metavar="MACHINE",
                        help="also keep it as bench/results/MACHINE-DATE.json")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    if options.record is not None and (options.quick or options.no_compile or options.no_jax):
        parser.error("--record needs the whole protocol: leave out --quick and --no-…")
    if options.record is not None and options.device == "cpu" and (reason := why_not()):
        parser.error(f"--record needs all rivals: jax: {reason}")
    if options.file and not options.file.is_file():
        parser.error(f"--file {options.file}: no such file")
    return options


def chosen(
    options: argparse.Namespace, suites: Iterable[Suite] = SUITES
) -> list[tuple[Suite, Case]]:
    """The cases that the command line asks for; --quick does not thin out a named selection."""
    picked = [
        (suite, case)
        for suite in suites
        for case in suite.cases
        if (not options.op or suite.name in options.op)
        and (not options.case or options.case in case.name)
        and (not options.dtype or options.dtype == case.dtype)
    ]
    if options.quick and not options.case and not options.dtype:
        picked = [(suite, case) for suite, case in picked if case.quick]
    return picked
