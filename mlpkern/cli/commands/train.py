"""The commands of the command line: parsed arguments in, printed lines and files out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
import time
import warnings
from typing import Any

import torch

from mlpkern.cli.resume import rate_change, resumed_config
from mlpkern.cli.session import (
    chosen_checkpoint,
    given_settings,
    print_words_and_model,
    set_threads,
    torch_device,
    words_of_arguments,
)
from mlpkern.lm.analysis.sample import sample, share_seen
from mlpkern.lm.errors import LMError
from mlpkern.lm.model.config import DEFAULT_PRESET, PRESETS
from mlpkern.lm.saved.checkpoint import (
    Checkpoint,
    check_vocab,
    load_checkpoint,
)
from mlpkern.lm.saved.records import write_config, write_summary
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.saved.run_words import dataset_of_run, make_dataset
from mlpkern.lm.training.engines import choose_engine
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.progress import make_progress
from mlpkern.lm.training.tensorboard import TensorBoardProgress, require_tensorboard
from mlpkern.lm.training.trainer import Trainer

__all__ = ["evaluate_command", "sample_command", "train_command"]


def train_command(args: argparse.Namespace) -> int:
    """``mlpkern train``: a new run, or with ``--resume`` the rest of one."""
    device = torch_device(args.device)
    set_threads(args.threads)
    if args.tensorboard:
        require_tensorboard()
    with contextlib.ExitStack() as held:
        checkpoint: Checkpoint | None = None
        if args.resume:
            run = RunFolder.open(args.resume)
            lock = held.enter_context(run.lock())
            checkpoint = load_checkpoint(run.path)
            config = resumed_config(args, checkpoint)
            dataset, data = dataset_of_run(checkpoint, args.file, args.data, same_words=True)
        else:
            out = args.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}"
            run = RunFolder.check_free(out, force=args.force)
            lock = run.lock()
            preset = PRESETS[args.preset or DEFAULT_PRESET]
            config = dataclasses.replace(preset, **given_settings(args))
            words, data = words_of_arguments(args)
            dataset = make_dataset(words, config, data)
        name = args.engine or (checkpoint.engine if checkpoint else "auto")
        engine, why = choose_engine(name, device, config)
        options: dict[str, Any] = {
            "run": run, "lock": lock, "data": data, "device": device, "kernels": args.kernels,
            "progress": make_progress(config.steps, checkpoint.step if checkpoint else 0),
        }  # fmt: skip
        if checkpoint:
            trainer = Trainer.resume(checkpoint, dataset, engine, config=config, **options)
        else:
            trainer = Trainer.start(config, dataset, engine, **options)
            held.enter_context(lock)
            # another process may have been quicker
            RunFolder.check_free(run.path, force=args.force)
            if run.checkpoint.exists():
                trainer.save()  # in one step the earlier run ends and this one begins
            run.remove_earlier()
        write_config(
            run, config, data=data, engine=engine.name, kernels=trainer.state.model.kernels,
            device=device,
        )  # fmt: skip
        _print_header(trainer, why, device)
        if checkpoint and (line := rate_change(checkpoint, config)):
            print(line)
        if args.tensorboard:
            done = trainer.state.step
            trainer.progress = TensorBoardProgress(run.path, trainer.progress, done=done)
        with warnings.catch_warnings():  # it is said at the end
            warnings.filterwarnings("ignore", "train: diverged", RuntimeWarning)
            trainer.train()
        _print_summary(trainer, run)
    if trainer.diverged:
        print(f"mlpkern train: error: {trainer.diverged}", file=sys.stderr)
    return 1 if trainer.diverged else 0


def sample_command(args: argparse.Namespace) -> int:
    """``mlpkern sample``: one word a line, then how many of them the model may know by heart."""
    device = torch_device(args.device)
    set_threads(args.threads)
    checkpoint, which = chosen_checkpoint(args)
    model = checkpoint.make_model(args.kernels or "fused").to(device).eval()
    words = sample(
        model, checkpoint.vocab, args.count, seed=args.seed, prefix=args.prefix,
        temperature=args.temperature, top_k=args.top_k, max_length=args.max_length,
    )  # fmt: skip
    for word in words:
        print(word)
    sys.stdout.flush()
    if which:
        print(which, file=sys.stderr)
    if words:
        print(_seen_line(words, checkpoint), file=sys.stderr)
    return 0


def _seen_line(words: list[str], checkpoint: Checkpoint) -> str:
    try:
        training = map(checkpoint.vocab.as_read, dataset_of_run(checkpoint)[0].words["train"])
    except LMError as error:  # the file may be gone; the samples are good all the same
        return f"how many of them occur in the training set is unknown: {error}"
    share = share_seen(words, training)
    return (
        f"{round(share * len(words))} of {len(words)} ({100 * share:.0f} %) occur in the "
        "training set"
    )


def evaluate_command(args: argparse.Namespace) -> int:
    """``mlpkern evaluate``: loss and accuracy over whole splits."""
    device = torch_device(args.device)
    set_threads(args.threads)
    checkpoint, which = chosen_checkpoint(args)
    dataset, _ = dataset_of_run(checkpoint, args.file, args.data)
    check_vocab(checkpoint.vocab, dataset.vocab)
    model = checkpoint.make_model(args.kernels or "fused").to(device)
    if which:
        print(which, file=sys.stderr, flush=True)
    for name in args.split:
        metrics = evaluate(model, dataset.splits[name].to(device))
        print(
            f"{name:<5} loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.4f}"
            f"  ({metrics.rows} rows)"
        )
    return 0


def _print_header(trainer: Trainer, why: str, device: torch.device) -> None:
    state = trainer.state
    print_words_and_model(state.config, state.model, trainer.dataset, trainer.data)
    print(f"engine  {trainer.engine.name} on {device}, {torch.get_num_threads()} threads: {why}")
    if state.step:
        print(f"resumed at step {state.step}")


def _print_summary(trainer: Trainer, run: RunFolder) -> None:
    """Evaluates, writes summary.json and prints; the losses are the last two lines."""
    state, splits, best = trainer.state, trainer.dataset.splits, trainer.best
    train, dev = (evaluate(state.model, splits[name]) for name in ("train", "dev"))
    write_summary(
        run, steps=state.step, seconds=trainer.seconds, engine=trainer.engine.name,
        train=dataclasses.asdict(train), dev=dataclasses.asdict(dev),
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
    print(f"train loss {train.loss:.4f}")
    print(f"dev loss   {dev.loss:.4f}")
