"""``mlpkern find-lr``: the learning rate for a run, and the command that trains with it."""

from __future__ import annotations

import argparse
import shlex
import time
from typing import TYPE_CHECKING

from mlpkern.cli.flags import add_device, add_group, add_text, add_words
from mlpkern.cli.values import number, path, whole
from mlpkern.lm.model.config import PRESETS
from mlpkern.lm.model.schedule import place_text

if TYPE_CHECKING:
    from mlpkern.lm.many.found_lr import FoundLR, Trials

SUMMARY = "find the learning rate for a run"
EPILOG = """\
examples:
  mlpkern find-lr                                     for: mlpkern train
  mlpkern find-lr names.txt --preset lecture --seeds 4 --png lr.png
  mlpkern find-lr book.txt --level word --optimizer adamw --schedule cosine --hidden-dropout 0.2

The flags are those of the run that you want to train. First a sweep: the rate grows from --low to
--high; its valley, where the loss is lowest, tells where to begin. Then trials: the run itself,
shortened, at rates by factors of two, judged on dev; three rounds, the last of them as long as the
run if that takes seconds, else at least an eighth of it. Longer runs want smaller rates, so the
best of the last trials is lowered for the rest of the steps. All of it takes seconds, or half as
long as the run. The last line printed is the command that trains at the recommended rate.
"""
# what the next command does not take over
OWN = ("out", "png", "force", "low", "high", "sweep_steps", "seeds", "lr")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda args: bool(args.out or args.png))
    add_words(parser)
    add_text(parser)
    add = parser.add_argument
    add("--preset", choices=tuple(PRESETS), help="settings of the run (quick)")
    add("--out", type=path, metavar="CSV", help="write the curve of the sweep to this file")
    add("--png", type=path, metavar="PNG", help="draw the sweep and the trials")
    add("--force", action="store_true", help="replace files that are already there")
    add_group(parser, "model")
    add_group(parser, "training", lr="the shape of the schedule, as in 0.1,0.01@75%; all its rates "
              "are scaled to the recommended one")  # fmt: skip
    add_group(parser, "optimizer")
    add = parser.add_argument_group("sweep").add_argument
    add("--low", type=number, metavar="LR", help="its first learning rate (0.0001; adamw: 0.00001)")
    add("--high", type=number, metavar="LR", help="its last (10; adamw: 1)")
    add("--sweep-steps", type=whole, metavar="S",
        help="its steps (a twentieth of the run, 100 to 1000)")  # fmt: skip
    add("--seeds", type=whole, default=1, metavar="M",
        help="its seeds, side by side from --seed on (1)")  # fmt: skip
    add_device(parser, kernels=False)


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.output import check_output
    from mlpkern.cli.session import (
        chosen_config,
        chosen_device,
        chosen_words,
        print_words_and_model,
    )
    from mlpkern.lm.atomic_write import write_bytes
    from mlpkern.lm.many.found_lr import find_lr, first_sweep
    from mlpkern.lm.model.mlp import check_models_fit
    from mlpkern.lm.model.state import initial_model
    from mlpkern.lm.plots import finder_plot, png, require_matplotlib

    device = chosen_device(args)
    out = check_output(args.out, force=args.force) if args.out else None
    picture = check_output(args.png, force=args.force, flag="--png") if args.png else None
    if picture:
        require_matplotlib()
    config = chosen_config(args)
    _, dataset, data = chosen_words(args, config)
    dataset, symbols = dataset.to(device), len(dataset.vocab)
    check_models_fit(
        max(1, args.seeds), symbols, config.block_size, config.embedding_dim, config.hidden
    )
    print_words_and_model(config, initial_model(config, symbols), dataset, data)
    began = time.perf_counter()
    curve = first_sweep(
        config, dataset, low=args.low, high=args.high, sweep_steps=args.sweep_steps,
        seeds=args.seeds,
    )  # fmt: skip
    print(
        f"sweep   {len(curve.lrs)} steps, {args.seeds} seeds, learning rate {curve.lrs[0]:g} to "
        f"{curve.lrs[-1]:g}; diverged by then: {curve.diverged}"
    )
    if out is not None:
        write_bytes(out, curve.to_csv().encode())
        print(f"saved in {out}", flush=True)
    found = find_lr(config, dataset, curve=curve, report=_print_trials)
    if picture is not None:
        write_bytes(picture, png(finder_plot(curve, found)))
        print(f"saved in {picture}")
    print(f"time    {time.perf_counter() - began:.1f} s")
    print(f"steepest descent {curve.steepest:.3g}: in the sweep the loss falls fastest")
    print(f"valley           {curve.valley:.3g}: there it is lowest")
    print(
        f"recommended      {found.recommended:.3g}: the best of the trials, followed to "
        f"{config.steps} steps"
    )
    print(f"next: {_next(args, found)}")
    return 0


def _print_trials(trials: Trials) -> None:
    dev = ", ".join(f"{loss:.4f} at {rate:.3g}" for rate, loss in trials.dev.items())
    print(f"trials  {trials.steps} steps, dev loss {dev}; best {trials.best:.3g}", flush=True)


def _next(args: argparse.Namespace, found: FoundLR) -> str:
    """The command that trains at the recommended rate, with the flags that were given."""
    own = {
        flag: action
        for action in args.parser._actions
        if action.dest in OWN
        for flag in action.option_strings
    }
    kept, given = [], iter(args.given)
    for text in given:
        flag, joined, _ = text.partition("=")
        if flag not in own:
            kept.append(text)
        elif not joined and own[flag].nargs != 0:
            next(given)  # its value
    rates = f"{found.recommended:g}"  # alone, it scales the schedule of the preset
    if isinstance(args.lr, tuple):
        stages = [f"{rate:.12g}@{place_text(at)}" for at, rate in found.config.lr]
        rates = ",".join(stages)
    return shlex.join(["mlpkern", "train", *kept, "--lr", rates])
