"""``mlpkern train``: a new run, or the rest of one; overfit.py has its sanity check."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from mlpkern.cli.flags import add_device, add_group, add_text, add_words
from mlpkern.cli.values import folder
from mlpkern.lm.model.config import PRESETS

if TYPE_CHECKING:
    import torch

    from mlpkern.lm.model.config import TrainConfig
    from mlpkern.lm.saved.checkpoint import Checkpoint
    from mlpkern.lm.saved.run_folder import RunFolder
    from mlpkern.lm.training.trainer import Trainer

SUMMARY = "train the MLP language model on words"
EPILOG = """\
examples:
  mlpkern train                                        the embedded names, a few seconds
  mlpkern train --preset letters                       an embedding to look at: mlpkern plot
  mlpkern train names.txt --preset lecture --out RUN   the run of the makemore lecture
  mlpkern train --data makemore --hidden 300 --lr 0.1,0.01@50% --steps 100000
  mlpkern train --optimizer adamw --lr 0.004 --schedule cosine --input-dropout 0.1
  mlpkern train book.txt --level word --running --lower   any text, word by word
  mlpkern train --overfit-batch                        can the model learn one batch by heart?
  mlpkern train --eval-every 500 --patience 5          end when dev has stopped falling
  mlpkern train --resume RUN                           go on after Ctrl-C, bit for bit
  mlpkern train --resume RUN --steps 300000            go on after the end

The last two lines printed are the losses over the train and dev split, of a large train split over
a sample of its rows: --train-eval all takes them all, none prints "train loss -". A run folder has
config.json, log.csv, model.safetensors (the last model), best.safetensors (the one with the lowest
dev loss) and summary.json. A run that diverges is saved, says so, and exits with 1. At the size of
the lecture one thread is usually fastest: --threads 1.
"""
# flags that do not go with --resume: where the run lies, and how its text is read
FIXED = (
    "out", "preset", "force", "max_word_length", "level", "lower", "running", "min_count",
)  # fmt: skip

TRAIN_EVALS = ("none", "sample", "all")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda args: not args.overfit_batch)
    add_words(parser)
    add_text(parser)
    add = parser.add_argument
    add("--preset", choices=tuple(PRESETS),
        help="settings that the flags below override: quick (default; 20,000 steps), letters (an "
        "embedding of two dimensions), lecture (makemore part 2; 200,000 steps) or best (a "
        "sweep's; 20,000 larger ones)")  # fmt: skip
    add("--out", type=folder, metavar="RUN", help="folder for the run (default runs/DATE-TIME)")
    add("--force", action="store_true", help="replace a run that is already in --out")
    add("--resume", type=folder, metavar="RUN",
        help="continue this run where its checkpoint stands")  # fmt: skip
    add("--overfit-batch", action="store_true",
        help="a sanity check instead of a run: the same batch in every step (of 1,000), until its "
        "loss is near the lowest possible")  # fmt: skip
    add_group(parser, "model")
    steps = add_group(parser, "training")
    steps.add_argument("--engine", choices=("auto", "run", "ops", "stock"),
                       help="run: thousands of steps in one call; ops: the fused ops, step by "
                       "step; stock: the lecture's own torch code; auto (default): the fastest "
                       "that applies")  # fmt: skip
    add_group(parser, "optimizer")
    often = add_group(parser, "on the way")
    often.add_argument("--tensorboard", action="store_true",
                       help="write the log as event files into the run folder, too")  # fmt: skip
    often.add_argument("--train-eval", choices=TRAIN_EVALS, default="sample",
                       help="rows of the train loss at the end: sample (default; all, or 100,000 "
                       "and more of a split with more than 10^9 logits), all or none")  # fmt: skip
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    if args.overfit_batch:
        from mlpkern.cli.overfit import run_overfit

        return run_overfit(args)

    from mlpkern.cli.session import chosen_config, chosen_device, chosen_words
    from mlpkern.lm.saved.checkpoint import load_checkpoint
    from mlpkern.lm.saved.records import write_config
    from mlpkern.lm.saved.run_folder import RunFolder
    from mlpkern.lm.saved.run_words import dataset_of_run
    from mlpkern.lm.training.engines import choose_engine
    from mlpkern.lm.training.progress import make_progress
    from mlpkern.lm.training.trainer import Trainer

    device = chosen_device(args)
    if args.tensorboard:
        from mlpkern.lm.training.tensorboard import TensorBoardProgress, require_tensorboard

        require_tensorboard()
    with contextlib.ExitStack() as held:
        checkpoint: Checkpoint | None = None
        if args.resume:
            run = RunFolder.open(args.resume)
            lock = held.enter_context(run.lock())
            checkpoint = load_checkpoint(run.path)
            config = _resumed_config(args, checkpoint)
            dataset, data = dataset_of_run(checkpoint, args.file, args.data, same_words=True)
        else:
            out = args.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}"
            run = RunFolder.check_free(out, force=args.force)
            lock = run.lock()
            config = chosen_config(args)
            _, dataset, data = chosen_words(args, config)
        name = args.engine or (checkpoint.engine if checkpoint else "auto")
        engine, why = choose_engine(name, device)
        options: dict[str, Any] = {
            "run": run, "lock": lock, "data": data, "device": device, "kernels": args.kernels,
        }  # fmt: skip
        if checkpoint:
            trainer = Trainer.resume(checkpoint, dataset, engine, config=config, **options)
        else:
            trainer = Trainer.start(config, dataset, engine, **options)
            held.enter_context(lock)
            # another process may have begun a run there meanwhile
            RunFolder.check_free(run.path, force=args.force)
            if run.checkpoint.exists():
                trainer.save()  # one rename replaces the earlier run
            run.remove_earlier()
        write_config(
            run, config, data=data, engine=engine.name, kernels=trainer.state.model.kernels,
            device=device,
        )  # fmt: skip
        _print_header(trainer, why, device)
        if checkpoint:
            _print_new_rate(checkpoint, config)
        done = trainer.state.step
        trainer.progress = make_progress(config.steps, done)  # a bar begins below the header
        if args.tensorboard:
            trainer.progress = TensorBoardProgress(run.path, trainer.progress, done=done)
        with warnings.catch_warnings():  # the last line tells it
            warnings.filterwarnings("ignore", "train: diverged", RuntimeWarning)
            trainer.train()
        _print_summary(trainer, run, args.train_eval)
    if trainer.diverged:
        print(f"mlpkern train: error: {trainer.diverged}", file=sys.stderr)
    return 1 if trainer.diverged else 0


def _resumed_config(args: argparse.Namespace, checkpoint: Checkpoint) -> TrainConfig:
    """The settings of the rest of a run.

    ConfigError for what cannot be changed, and where more steps alone would raise the learning
    rate, as they do on a cosine that has fallen: that undoes what the low rate has reached, so
    --schedule or --lr must say that it is wanted.
    """
    from mlpkern.cli.session import given_settings
    from mlpkern.lm.errors import ConfigError
    from mlpkern.lm.saved.resumed import next_rates, resumed_config

    for flag in FIXED:
        if (value := getattr(args, flag)) is not None and value is not False:  # 0 is given, too
            raise ConfigError(f"--{flag.replace('_', '-')} does not go with --resume")
    given = given_settings(args)
    config = resumed_config(checkpoint, given, args.resume)
    planned, rate = next_rates(checkpoint, config)
    longer = config.steps != checkpoint.config.steps and not {"lr", "schedule"} & set(given)
    if longer and rate > planned:
        raise ConfigError(
            f"--steps {config.steps} stretches the cosine: the learning rate would rise from "
            f"{planned:.3g} to {rate:.3g} at step {checkpoint.step}; accept that with "
            "--schedule cosine, or choose rates with --schedule staged --lr LR"
        )
    return config


def _print_new_rate(checkpoint: Checkpoint, config: TrainConfig) -> None:
    """A line about the learning rate of the next step where it is not the planned one."""
    from mlpkern.cli.output import folded
    from mlpkern.lm.saved.resumed import next_rates

    planned, rate = next_rates(checkpoint, config)
    if rate == planned or checkpoint.step == config.steps:
        return
    over = f"{config.schedule} over {config.steps} steps"
    warm = f", warm-up {config.warmup}" if config.warmup else ""
    line = (
        f"lr      {rate:.3g} from step {checkpoint.step} on, where the run had planned "
        f"{planned:.3g}: {over}{warm}; --lr and --schedule choose others"
    )
    print(folded(line))


def _print_header(trainer: Trainer, why: str, device: torch.device) -> None:
    import torch

    from mlpkern.cli.output import folded
    from mlpkern.cli.session import print_words_and_model
    from mlpkern.lm.model.setting import setting_text

    state = trainer.state
    print_words_and_model(state.config, state.model, trainer.dataset, trainer.data)
    on = f"{device}, {torch.get_num_threads()} threads"
    print(folded(f"engine  {trainer.engine.name} on {on}: {why}"))
    if late := state.config.stages_after_the_end():
        total = state.config.steps
        print(folded(f"lr      {setting_text(late)} is never reached: the run has {total} steps"))
    if state.step:
        print(f"resumed at step {state.step}")


def _print_summary(trainer: Trainer, run: RunFolder, train_eval: str) -> None:
    """Evaluates, writes summary.json and prints; the losses are the last two lines."""
    from mlpkern.lm.saved.records import write_summary
    from mlpkern.lm.training.evaluation import evaluate, sampled

    state, splits, best = trainer.state, trainer.dataset.splits, trainer.best
    dev = trainer.dev or evaluate(state.model, splits["dev"], shown_as="dev")
    train, every = None, len(splits["train"])
    if train_eval != "none":
        whole = splits["train"]
        rows = whole if train_eval == "all" else sampled(whole, state.model.vocab_size)
        train = evaluate(state.model, rows, shown_as="train")
    write_summary(
        run, steps=state.step, seconds=trainer.seconds, engine=trainer.engine.name,
        train={**dataclasses.asdict(train), "of": every} if train else None,
        dev=dataclasses.asdict(dev),
        best=None if best.step is None else {"step": best.step, "dev_loss": best.dev_loss},
        diverged=trainer.diverged is not None,
    )  # fmt: skip
    if state.step < state.config.steps:
        lowest = "that is finite" if best.step is None else f"below that of step {best.step}"
        print(
            f"ended at step {state.step}: no dev loss {lowest} {best.waited} times in a row; "
            f"go on with: mlpkern train --resume {shlex.quote(str(run.path))}"
        )
    pace = f", {1e6 * trainer.seconds / state.step:.1f} µs a step" if state.step else ""
    print(f"{state.step} steps in {trainer.seconds:.2f} s{pace}")
    following = "" if trainer.diverged else f"; next: mlpkern sample {shlex.quote(str(run.path))}"
    print(f"saved in {run.path}{following}")
    if best.step not in (None, state.step):
        kept = f"{best.dev_loss:.4f} at step {best.step}, kept as {run.best.name}"
        print(f"best dev loss {kept}; at the last step:")
    part = f" ({train.rows} of {every} rows)" if train and train.rows < every else ""
    print(f"train loss {train.loss:.4f}{part}" if train else "train loss -")
    print(f"dev loss   {dev.loss:.4f}")
