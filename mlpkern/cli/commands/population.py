"""``mlpkern population``: a plan in, a folder with all of its models out."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpkern.cli.flags import add_device, setting_of_text
from mlpkern.cli.values import folder, path, whole

if TYPE_CHECKING:
    from mlpkern.lm.many.kept.folder import PopulationFolder
    from mlpkern.lm.many.kept.record import PopulationRecord
    from mlpkern.lm.many.trained import Trained
    from mlpkern.lm.training.progress import Progress
    from mlpkern.lm.words.data import Dataset

SUMMARY = "train many settings side by side, and keep every model"
EPILOG = """\
examples:
  mlpkern population grid.yaml                         into the folder runs/grid
  mlpkern population grid.yaml --out DIR --tensorboard
  mlpkern population DIR                               go on after Ctrl-C or a crash, bit for bit
  mlpkern population DIR --model 17 --save RUN         model 17 as a run of its own
  mlpkern sample DIR/best

A plan is YAML with any of these keys:
  file: names.txt             the words, or data: embedded; also level, running, min_count, lower
  preset: quick
  set: {steps: 2000}          settings of all models
  grid:                       every combination is a model; the last key varies fastest
    hidden: [100, 200]
    lr: [0.1, 0.05]
    seed: 0..9
  models: [{hidden: 300}]     and these
  keep_best: true             also keep the model with the lowest dev loss of each
  max_points: 200             of a loss curve

DIR holds results.csv, a row a model; curves.csv; the models; and best, a run. The same command goes
on with what is there, and trains nothing twice. Needs pyyaml: pip install 'mlpkern[sweep]'.
"""
SHOWN = 5  # lines of a printed table


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda _: True)
    add = parser.add_argument
    add("plan", type=path, metavar="PLAN",
        help="the plan in YAML, or the folder of a population, which goes on")  # fmt: skip
    add("--out", type=folder, metavar="DIR",
        help="folder of the population; an existing one goes on (runs/NAME of PLAN)")  # fmt: skip
    add("--force", action="store_true",
        help="replace another population in --out, or a run in --save")  # fmt: skip
    add("--parquet", action="store_true", default=None,
        help="curves.parquet is an error without pyarrow (default: written where that is "
        "installed)")  # fmt: skip
    add("--tensorboard", action="store_true",
        help="write a run of TensorBoard for each model, too")  # fmt: skip
    add("--model", type=whole, metavar="N", help="take this model out of a population")
    add("--save", type=folder, metavar="RUN", help="as this run folder")
    add_device(parser, kernels=False)


def run(args: argparse.Namespace) -> int:
    import torch

    from mlpkern.cli.session import chosen_device, data_line
    from mlpkern.lm.errors import ConfigError
    from mlpkern.lm.many.kept.population import train_in_folder

    device = chosen_device(args)
    if (args.model is None) != (args.save is None):
        raise ConfigError("--model N and --save RUN go together")
    if args.save:
        return _take_out(args)
    there, record, dataset = _continued(args) if Path(args.plan).is_dir() else _planned(args)
    there.check(record, force=args.force)
    steps = sum(config.steps for config in record.configs)
    print(data_line(dataset, record.data))
    print(f"models  {len(record.configs)}: {_varied(record) or 'one setting'}")
    print(f"steps   {steps:,} in all, on {torch.get_num_threads()} threads", flush=True)
    began, busy = time.perf_counter(), time.process_time()
    trained = train_in_folder(
        record, dataset.to(device), there, show=_shown, parquet=args.parquet,
        tensorboard=args.tensorboard, force=args.force,
    )  # fmt: skip
    elapsed, busy = time.perf_counter() - began, time.process_time() - busy
    print(f"{len(trained)} models in {elapsed:.1f} s ({busy:.1f} s of CPU time); the best:")
    return 0 if _print_results(args, there, record, trained) else 1


def _planned(args: argparse.Namespace) -> tuple[PopulationFolder, PopulationRecord, Dataset]:
    """What a plan asks for, and its folder."""
    from mlpkern.cli.session import chosen_words
    from mlpkern.lm.many.kept.folder import PopulationFolder
    from mlpkern.lm.many.kept.record import PopulationRecord
    from mlpkern.lm.many.plan import WORDS, read_population_plan

    plan = read_population_plan(args.plan, setting_of_text)
    words = argparse.Namespace(**{**dict.fromkeys(WORDS), **plan.words})
    _, dataset, data = chosen_words(words, plan.configs[0])
    record = PopulationRecord(plan.configs, data, plan.max_points, plan.keep_best)
    return PopulationFolder(Path(args.out or f"runs/{Path(args.plan).stem}")), record, dataset


def _continued(args: argparse.Namespace) -> tuple[PopulationFolder, PopulationRecord, Dataset]:
    """What the folder of a population is to hold in the end."""
    from mlpkern.lm.errors import ConfigError
    from mlpkern.lm.many.kept.folder import PopulationFolder
    from mlpkern.lm.many.kept.record import PopulationRecord
    from mlpkern.lm.saved.run_words import dataset_of_record

    for flag in ("out", "force"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag} goes with a plan; {args.plan} is a folder, which goes on")
    there = PopulationFolder.open(args.plan)
    record = PopulationRecord.read(there.record)
    dataset, _ = dataset_of_record(record.data, record.configs[0], folder=there.path)
    return there, record, dataset


def _take_out(args: argparse.Namespace) -> int:
    """Writes one model of a population as a run."""
    from mlpkern.lm.errors import CheckpointError
    from mlpkern.lm.many.train_population import trained_in

    found = trained_in(args.plan)
    if args.model not in found:
        raise CheckpointError(f"{args.plan}: no model {args.model} that has ended, see results.csv")
    run = found[args.model].save(args.save, force=args.force)
    print(f"saved in {run.path}; next: mlpkern sample {shlex.quote(str(run.path))}")
    return 0


def _varied(record: PopulationRecord) -> str:
    """The settings that vary, each with its values if they are few."""
    from mlpkern.lm.model.setting import setting_text

    texts = []
    for name in record.varying():
        values = list(dict.fromkeys(getattr(config, name) for config in record.configs))
        shown = [setting_text(value) for value in values]
        few = " ".join(shown) if len(shown) <= 6 else f"{shown[0]} … {shown[-1]} ({len(shown)})"
        texts.append(f"{name} {few}")
    return "; ".join(texts)


@contextlib.contextmanager
def _shown(total: int, done: int) -> Iterator[Progress]:
    """A bar on a terminal, else lines."""
    from mlpkern.lm.training.progress import on_a_terminal, shown_progress

    lines = None if on_a_terminal() else _Lines(total, done)
    with shown_progress(lines or True, total, done) as progress:
        yield progress


class _Lines:
    """A line for each tenth of the steps, on standard output."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._first = total, done, done
        self._began = time.perf_counter()

    def advance(self, steps: int) -> None:
        before, self._done = self._done, self._done + steps
        if 10 * before // self._total < 10 * self._done // self._total < 10:
            elapsed = time.perf_counter() - self._began
            left = elapsed * (self._total - self._done) / (self._done - self._first)
            print(
                f"step {self._done:>{len(str(self._total))}}/{self._total}  "
                f"{self._done / self._total:4.0%}  {elapsed:.1f} s, {left:.0f} s left",
                flush=True,
            )

    def row(self, row: Any) -> None: ...

    def close(self) -> None: ...


def _print_results(
    args: argparse.Namespace,
    there: PopulationFolder,
    record: PopulationRecord,
    trained: list[Trained],
) -> bool:
    """The tables of the best, the files, and how to go on; whether there is a good model."""
    from mlpkern.lm.many.kept.tables import ranked

    good = ranked(dict(enumerate(trained)))
    if good:
        _print_tables(record, trained, good)
    if len(good) < len(trained):
        print(f"{len(trained) - len(good)} models have stopped or diverged, see results.csv")
    files = [there.results, there.curves, there.models]
    files += [there.parquet] if there.parquet.is_file() else []
    files += [there.tensorboard] if args.tensorboard else []
    best_run = ", the best run in best" if good else ""
    print(f"saved in {there.path}: {', '.join(file.name for file in files)}{best_run}")
    if not good:
        print("mlpkern population: error: every model has stopped or diverged", file=sys.stderr)
        return False
    print(f"next: mlpkern sample {shlex.quote(str(there.best.path))}")
    print(f"best dev loss {trained[good[0]].best.dev.loss:.4f}")
    return True


def _print_tables(record: PopulationRecord, trained: list[Trained], good: list[int]) -> None:
    """The best models and, where several differ in the seed alone, the best of the other settings.
    The dev losses are those of the best models, where these are kept."""
    from mlpkern.lm.analysis.text_table import aligned
    from mlpkern.lm.many.kept.tables import over_seeds
    from mlpkern.lm.model.setting import setting_text

    def texts(i: int, names: list[str]) -> list[str]:
        return [setting_text(getattr(trained[i].config, name)) for name in names]

    names = record.varying()
    rows = [["model", "dev loss", *(["at step"] if record.keep_best else []), *names]]
    for i in good[:SHOWN]:
        best = trained[i].best
        at = [str(best.step)] if record.keep_best else []
        rows.append([str(i), f"{best.dev.loss:.4f}", *at, *texts(i, names)])
    lines = aligned(rows, right=range(len(rows[0])))
    alike = over_seeds(dict(enumerate(trained)))
    if len(alike) < len(good):
        others = [name for name in names if name != "seed"]
        rows = [["seeds", "dev loss", "±", *others]]
        for numbers, mean, deviation in alike[:SHOWN]:
            spread = f"{deviation:.4f}" if len(numbers) > 1 else "-"
            rows.append([str(len(numbers)), f"{mean:.4f}", spread, *texts(numbers[0], others)])
        lines += ["mean and standard deviation over the seeds:"]
        lines += aligned(rows, right=range(len(rows[0])))
    print("\n".join(lines))
