"""``mlpkern sweep``: flags and a plan file in, a table, pictures and a run out."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlpkern.cli.flags import add_device, add_group, add_text, add_words
from mlpkern.cli.values import folder, number, path, shares, whole
from mlpkern.lm.model.setting import setting_text
from mlpkern.lm.search.plan import DEFAULT_BASE, SweepPlan

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from mlpkern.lm.search.rungs import Sweep

SUMMARY = "search settings, many runs at once"
EPILOG = """\
examples:
  mlpkern sweep names.txt --out SWEEP            the default search, under ten minutes on two cores
  mlpkern sweep names.txt --out SWEEP --trials 96             goes on with the same study
  mlpkern sweep --trials 16 --steps 3000 --search lr=0.001:0.03:log --search hidden=64,128
  mlpkern sweep --search lr=0.001:0.03:log --search seed=0..3   means over four seeds decide
  mlpkern sweep names.txt --block-size 3 --plan plan.yaml     what is given here is not searched
  mlpkern sample SWEEP/best

Trials train side by side; after some of the steps only those with the lowest dev loss go on. Any
number of processes may work on one folder, also from several machines. Ctrl-C keeps the study, its
tables and the best run. The test split is never looked at. Needs optuna, and pyyaml for --plan:
pip install 'mlpkern[sweep]'. In a browser: optuna-dashboard SWEEP/study.journal
"""
SHOWN = 10  # trials in the printed table
BUDGET: dict[str, tuple[Callable[[str], Any], str, str]] = {  # fields of `SweepPlan`
    "trials": (whole, "N", "stop when the study has so many"),
    "minutes": (number, "M", "begin no batch of trials that would end later; 0: no limit"),
    "batch": (whole, "N", "trials that train together"),
    "shapes": (whole, "N", "different shapes among them"),
    "rungs": (shares, "P[,P...]", "shares of the steps after which trials are pruned"),
    "cooldown": (
        number, "P", "there, the dev loss is that of a copy after this share of the steps so far "
        "at falling rates",
    ),
    "keep": (number, "K", "at a rung one in K goes on"),
}  # fmt: skip


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda _: True)
    add_words(parser)
    add_text(parser)
    add = parser.add_argument
    add("--out", type=folder, metavar="SWEEP",
        help="folder of the study; an existing one goes on (runs/sweep-DATE)")  # fmt: skip
    add("--tensorboard", action="store_true",
        help="also write the trials as event files into SWEEP/tensorboard")  # fmt: skip
    add("--plan", type=path, metavar="YAML",
        help="search space, fixed settings and budget from this file")  # fmt: skip
    search = parser.add_argument_group("search").add_argument
    search("--search", action="append", metavar="NAME=VALUES",
           help="add to the space or replace: lr=0.001:0.01:log, hidden=128,256, seed=0..4 (every "
           "other combination with each of these)")  # fmt: skip
    for name, (kind, metavar, text) in BUDGET.items():
        default = setting_text(getattr(SweepPlan, name))
        search(f"--{name}", type=kind, metavar=metavar, help=f"{text} ({default})")
    add_group(parser, "model")
    add_group(
        parser, "training", DEFAULT_BASE,
        steps=f"optimizer steps of a trial ({DEFAULT_BASE.steps})",
        lr="do not search it, take this",
        schedule=f"of the learning rate ({DEFAULT_BASE.schedule})",
        seed="of the search, and of every trial (0)",
    )  # fmt: skip
    add_group(parser, "optimizer", DEFAULT_BASE)
    add_device(parser, kernels=False)


def run(args: argparse.Namespace) -> int:
    import torch

    from mlpkern.cli.output import folded
    from mlpkern.cli.session import chosen_device, chosen_words, data_line
    from mlpkern.lm.search.folder import SweepFolder
    from mlpkern.lm.search.progress import sweep_display
    from mlpkern.lm.search.rungs import sweep
    from mlpkern.lm.training.tensorboard import require_tensorboard

    device = chosen_device(args)
    if args.tensorboard:
        require_tensorboard()
    plan = _plan(args)
    study = SweepFolder.open(args.out or f"runs/sweep-{time.strftime('%Y%m%d-%H%M%S')}")
    _, dataset, data = chosen_words(args, plan.base)
    print(data_line(dataset, data))
    print(folded(f"search  {', '.join(plan.space.entries)}"))
    limit_text = "" if plan.minutes is None else f" or {plan.minutes:g} minutes"
    budget = (
        f"budget  {plan.trials} trials{limit_text}; {plan.base.steps} steps each, "
        f"{plan.batch} together on {torch.get_num_threads()} threads; one in {plan.keep:g} goes on "
        f"at {', '.join(f'{share:.0%}' for share in plan.rungs) or 'no rung'}"
    )
    print(folded(budget))
    began, busy = time.perf_counter(), time.process_time()
    display = sweep_display()
    try:
        done = sweep(
            plan,
            dataset.to(device),
            study,
            data=data,
            report=display.line,
            progress=display,
            tensorboard=args.tensorboard,
        )
    except KeyboardInterrupt:
        display.close()
        again = f"the same command with --out {shlex.quote(str(study.path))} goes on"
        tables = f"{study.table.name} and {study.curves.name}"
        print(f"stopped; {tables} hold the trials that have ended; {again}", flush=True)
        raise
    finally:
        display.close()
    elapsed, busy = time.perf_counter() - began, time.process_time() - busy
    if done.trained:
        print(
            f"{done.trained} trials in {elapsed:.1f} s ({busy:.1f} s of CPU time), "
            f"{60 * done.trained / elapsed:.1f} a minute"
        )
    return 0 if _print_results(done) else 1


def _plan(args: argparse.Namespace) -> SweepPlan:
    """The default plan, then the file, then the flags; a setting that a flag gives is fixed."""
    from mlpkern.cli.session import given_settings
    from mlpkern.lm.errors import ConfigError
    from mlpkern.lm.search.plan import read_plan
    from mlpkern.lm.search.space import SearchSpace, parse_entries

    plan = read_plan(args.plan) if args.plan else SweepPlan()
    fixed = given_settings(args)
    given = parse_entries(args.search or [])
    if both := sorted(set(fixed) & set(given)):
        raise ConfigError(f"sweep: {', '.join(both)}: both given and searched")
    searched = {n: entry for n, entry in plan.space.entries.items() if n not in fixed}
    space = SearchSpace({**searched, **given})
    budget = {n: v for n in (*BUDGET, "seed") if (v := getattr(args, n)) is not None}
    if args.minutes == 0:
        budget["minutes"] = None
    base = plan.base.with_settings(**fixed)
    return dataclasses.replace(plan, base=base, space=space, **budget)


def _print_results(done: Sweep) -> bool:
    """The table of the best trials, the files, and how to go on; whether there is a best one."""
    from mlpkern.lm.search.study import finished_trials, ranked_settings

    trials, seeds = finished_trials(done.study), done.plan.space.seeds
    study, names = done.folder, list(done.plan.space.entries)
    ended = sum(trial.state.name == "COMPLETE" for trial in trials)
    print(f"{len(trials)} trials in the study, {ended} of them to the last step; the best:")
    for line in _table(ranked_settings(trials, seeds)[:SHOWN], names):
        print(line)
    pictures = _write_pictures(done, trials)
    tables = f"{study.table.name}, {study.curves.name}" if trials else study.table.name
    best = ", the best run in best" if study.best.checkpoint.is_file() else ""
    print(f"saved in {study.path}: {tables}, {pictures}{best}")
    if best:
        print(f"next: mlpkern sample {shlex.quote(str(study.best.path))}")
    if done.best:
        print(f"best dev loss {done.best.value:.4f}")
    else:
        print("mlpkern sweep: error: every trial has diverged or failed", file=sys.stderr)
    return done.best is not None


def _table(ranked: list[list[FrozenTrial]], names: list[str]) -> list[str]:
    """Lines of a table: a trial a line, or settings with all their seeds; a setting a column."""
    from mlpkern.lm.analysis.text_table import aligned
    from mlpkern.lm.search.study import last_loss, mean_loss

    def short(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    several = any(len(trials) > 1 for trials in ranked)
    shown = [name for name in names if not (several and name == "seed")]
    rows = [["trials", "mean dev", "lowest", "highest", *shown] if several
            else ["trial", "dev loss", *shown]]  # fmt: skip
    for trials in ranked:
        losses = [mean_loss(trials), *([min(map(last_loss, trials)), max(map(last_loss, trials))]
                                       if several else [])]  # fmt: skip
        numbers = [trial.number for trial in trials]
        which = f"{min(numbers)}-{max(numbers)}" if several else str(numbers[0])
        settings = [short(trials[0].params[name]) for name in shown]
        rows.append([which, *(f"{loss:.4f}" for loss in losses), *settings])
    return aligned(rows, right=range(len(rows[0])))


def _write_pictures(done: Sweep, trials: list[FrozenTrial]) -> str:
    """Writes history.png and parallel.png; returns their names, or why there are none."""
    from mlpkern.lm.atomic_write import write_bytes
    from mlpkern.lm.errors import MissingPackageError

    try:
        from mlpkern.lm.plots import png
        from mlpkern.lm.search.pictures import history_plot, parallel_plot

        space, title = done.plan.space, done.folder.path.resolve().name
        figures = {
            "history.png": history_plot(trials, space, title),
            "parallel.png": parallel_plot(trials, space, title),
        }
    except MissingPackageError as error:
        return f"no pictures ({error})"
    for name, figure in figures.items():
        write_bytes(done.folder.path / name, png(figure))
    return ", ".join(figures)
