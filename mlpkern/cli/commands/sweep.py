"""The command ``mlpkern sweep``: flags and a plan file in, a table, pictures and a run out."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mlpkern.cli.session import (
    data_line,
    given_settings,
    set_threads,
    torch_device,
    words_of_arguments,
)
from mlpkern.lm.atomic_write import write_bytes
from mlpkern.lm.errors import ConfigError, MissingPackageError
from mlpkern.lm.saved.run_words import make_dataset
from mlpkern.lm.search.folder import SweepFolder, trials_csv
from mlpkern.lm.search.plan import SweepPlan, read_plan
from mlpkern.lm.search.rungs import Sweep, sweep
from mlpkern.lm.search.space import SearchSpace, parse_entries
from mlpkern.lm.search.study import finished_trials, last_loss

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["sweep_command"]

SHOWN = 10  # trials in the printed table


def sweep_command(args: argparse.Namespace) -> int:
    """``mlpkern sweep``: searches, then says what it found."""
    device = torch_device(args.device)
    set_threads(args.threads)
    plan = _plan(args)
    folder = SweepFolder.open(args.out or f"runs/sweep-{time.strftime('%Y%m%d-%H%M%S')}")
    words, data = words_of_arguments(args)
    dataset = make_dataset(words, plan.base, data).to(device)
    print(data_line(dataset, data))
    print(f"search  {', '.join(plan.space.entries)}")
    limit_text = "" if plan.minutes is None else f" or {plan.minutes:g} minutes"
    print(
        f"budget  {plan.trials} trials{limit_text}; {plan.base.steps} steps each, "
        f"{plan.batch} together on {torch.get_num_threads()} threads; one in {plan.keep:g} goes on "
        f"at {', '.join(f'{share:.0%}' for share in plan.rungs) or 'no rung'}"
    )
    began, processor = time.perf_counter(), time.process_time()
    try:
        done = sweep(plan, dataset, folder, data=data, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print(f"stopped; the same command with --out {shlex.quote(str(folder.path))} goes on")
        raise
    elapsed, processor = time.perf_counter() - began, time.process_time() - processor
    if done.trained:
        pace = 60 * done.trained / elapsed
        print(
            f"{done.trained} trials in {elapsed:.1f} s ({processor:.1f} s of CPU time), "
            f"{pace:.1f} a minute"
        )
    return 0 if _print_results(done) else 1


def _plan(args: argparse.Namespace) -> SweepPlan:
    """The default plan, then the file, then the flags; a setting that a flag gives is fixed."""
    plan = read_plan(args.plan) if args.plan else SweepPlan()
    fixed = given_settings(args)
    given = parse_entries(args.search or [])
    if both := sorted(set(fixed) & set(given)):
        raise ConfigError(f"sweep: {', '.join(both)}: both given and searched")
    searched = {n: e for n, e in plan.space.entries.items() if n not in fixed}
    space = SearchSpace({**searched, **given})
    names = ("trials", "batch", "shapes", "keep", "rungs", "cooldown")
    budget = {n: v for n in names if (v := getattr(args, n)) is not None}
    if args.minutes is not None:
        budget["minutes"] = args.minutes or None
    if args.seed is not None:
        budget["seed"] = args.seed
    base = dataclasses.replace(plan.base, **fixed)
    return dataclasses.replace(plan, base=base, space=space, **budget)


def _print_results(done: Sweep) -> bool:
    """The table of the best trials, the files, and how to go on; whether there is a best one."""
    trials = finished_trials(done.study)
    folder, names = done.folder, list(done.plan.space.entries)
    write_bytes(folder.table, trials_csv(trials, names).encode())
    ended = sorted((t for t in trials if t.state.name == "COMPLETE"), key=last_loss)
    print(f"{len(trials)} trials in the study, {len(ended)} of them to the last step; the best:")
    for line in table(ended[:SHOWN], names):
        print(line)
    pictures = _write_pictures(done, trials)
    best = ", the best run in best" if folder.best.checkpoint.is_file() else ""
    print(f"saved in {folder.path}: {folder.table.name}, {pictures}{best}")
    if best:
        print(f"next: mlpkern sample {shlex.quote(str(folder.best.path))}")
    if ended:
        print(f"best dev loss {ended[0].value:.4f}")
    else:
        print("mlpkern sweep: error: every trial has diverged or failed", file=sys.stderr)
    return bool(ended)


def table(trials: list[FrozenTrial], names: list[str]) -> list[str]:
    """Lines of a table: a trial a line, a setting a column."""
    rows = [["trial", "dev loss", *names]]
    for trial in trials:
        settings = [_short(trial.params[name]) for name in names]
        rows.append([str(trial.number), f"{trial.value:.4f}", *settings])
    wide = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, wide, strict=True)) for row in rows]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write_pictures(done: Sweep, trials: list[FrozenTrial]) -> str:
    """Writes history.png and parallel.png; says so, or why not."""
    try:
        from mlpkern.lm.plots import png
        from mlpkern.lm.search.pictures import history_plot, parallel_plot

        figures = {
            "history.png": history_plot(trials),
            "parallel.png": parallel_plot(trials, done.plan.space),
        }
    except MissingPackageError as error:
        return f"no pictures ({error})"
    for name, figure in figures.items():
        write_bytes(Path(done.folder.path) / name, png(figure))
    return ", ".join(figures)
