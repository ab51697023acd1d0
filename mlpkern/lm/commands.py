"""The commands of the command line: parsed arguments in, printed lines and files out."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any

import torch

from mlpkern.lm.arguments import (
    given_settings,
    load_words,
    make_dataset,
    set_threads,
    torch_device,
)
from mlpkern.lm.atomic_write import write_bytes, write_json
from mlpkern.lm.checkpoint import (
    Checkpoint,
    check_vocab,
    load_checkpoint,
    load_model,
    versions,
)
from mlpkern.lm.config import DEFAULT_PRESET, PRESETS, TrainConfig, seed_for
from mlpkern.lm.data import MAX_WORD_LENGTH, Dataset
from mlpkern.lm.engines import choose_engine
from mlpkern.lm.errors import CheckpointError, ConfigError
from mlpkern.lm.evaluate import evaluate
from mlpkern.lm.lr_finder import lr_finder
from mlpkern.lm.model import MLPLanguageModel
from mlpkern.lm.progress import make_progress
from mlpkern.lm.run_folder import RunFolder
from mlpkern.lm.sample import sample
from mlpkern.lm.train import Trainer

__all__ = ["evaluate_command", "find_lr_command", "sample_command", "train_command"]

# what --resume may change: how far and how often, and the learning rate of what is to come
_CHANGEABLE = {"steps", "lr", "log_every", "eval_every", "checkpoint_every"}


def train_command(args: argparse.Namespace) -> int:
    """``mlpkern train``: a new run, or with ``--resume`` the rest of one."""
    device = torch_device(args.device)
    set_threads(args.threads)
    checkpoint: Checkpoint | None = None
    if args.resume:
        run = RunFolder.open(args.resume)
        checkpoint = load_checkpoint(run.path)
        config = _resumed_config(args, checkpoint)
        dataset, data = _resumed_data(args, checkpoint)
    else:
        out = args.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}"
        run = RunFolder.check_free(out, force=args.force)
        config = dataclasses.replace(PRESETS[args.preset or DEFAULT_PRESET], **given_settings(args))
        limit = args.max_word_length or MAX_WORD_LENGTH
        words, data = load_words(args.file, args.data or "embedded", limit)
        dataset = make_dataset(words, config, data)
    name = args.engine or (checkpoint.engine if checkpoint else "auto")
    engine, why = choose_engine(name, device)
    options: dict[str, Any] = {
        "run": run, "data": data, "device": device, "kernels": args.kernels,
        "progress": make_progress(config.steps, checkpoint.step if checkpoint else 0),
    }  # fmt: skip
    if checkpoint:
        trainer = Trainer.resume(checkpoint, dataset, engine, config=config, **options)
    else:
        trainer = Trainer.start(config, dataset, engine, **options)
        run.create()
    _write_config(run, config, trainer, data, device)
    _print_header(trainer, why, device)
    trainer.train()
    _print_summary(trainer, run)
    return 0


def sample_command(args: argparse.Namespace) -> int:
    """``mlpkern sample``: one word a line."""
    device = torch_device(args.device)
    set_threads(args.threads)
    model, vocab = load_model(args.run, kernels=args.kernels or "fused", device=device)
    words = sample(
        model, vocab, args.count, seed=args.seed, prefix=args.prefix,
        temperature=args.temperature, max_length=args.max_length,
    )  # fmt: skip
    for word in words:
        print(word)
    return 0


def evaluate_command(args: argparse.Namespace) -> int:
    """``mlpkern evaluate``: loss and accuracy over whole splits."""
    device = torch_device(args.device)
    set_threads(args.threads)
    checkpoint = load_checkpoint(args.run)
    dataset, _ = _resumed_data(args, checkpoint, same_words=False)
    check_vocab(checkpoint.vocab, dataset.vocab)
    model = checkpoint.make_model(args.kernels or "fused").to(device)
    for name in args.split:
        metrics = evaluate(model, dataset.splits[name].to(device))
        print(
            f"{name:<5} loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.4f}"
            f"  ({metrics.rows} rows)"
        )
    return 0


def find_lr_command(args: argparse.Namespace) -> int:
    """``mlpkern find-lr``: a sweep of the learning rate, its curve and two suggestions."""
    device = torch_device(args.device)
    set_threads(args.threads)
    out = Path(args.out) if args.out else None
    if out is not None and out.exists() and not args.force:
        raise ConfigError(f"{out}: exists; replace it with --force, or choose another --out")
    if args.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {args.seeds}")
    config = dataclasses.replace(PRESETS[args.preset or DEFAULT_PRESET], **given_settings(args))
    words, data = load_words(
        args.file, args.data or "embedded", args.max_word_length or MAX_WORD_LENGTH
    )
    dataset = make_dataset(words, config, data).to(device)
    seeds = range(config.seed, config.seed + args.seeds)
    sizes = (len(dataset.vocab), config.block_size, config.embedding_dim, config.hidden)
    models = [
        MLPLanguageModel(*sizes, init=config.init, seed=seed_for(seed, "init")).to(device)
        for seed in seeds
    ]
    _print_words_and_model(config, models[0], dataset, data)
    began = time.perf_counter()
    curve = lr_finder(
        models, dataset.splits["train"], low=args.low, high=args.high, steps=args.sweep_steps,
        batch_size=config.batch_size, seeds=seeds,
    )  # fmt: skip
    print(
        f"sweep   {args.sweep_steps} steps, {args.seeds} seeds, learning rate {args.low:g} to "
        f"{args.high:g}, {time.perf_counter() - began:.2f} s; diverged: {curve.diverged}"
    )
    if out is not None:
        write_bytes(out, curve.to_csv().encode())
        print(f"saved in {out}")
    if curve.steepest is None or curve.valley is None:
        raise ConfigError(
            f"the loss never falls between --low {args.low:g} and --high {args.high:g}"
        )
    print(f"valley           {curve.valley:.3g}")
    print(f"steepest descent {curve.steepest:.3g}")
    return 0


def _resumed_config(args: argparse.Namespace, checkpoint: Checkpoint) -> TrainConfig:
    for flag in ("out", "preset", "force", "max_word_length"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag.replace('_', '-')} does not go with --resume")
    given = given_settings(args)
    for name, value in given.items():
        before = getattr(checkpoint.config, name)
        if name not in _CHANGEABLE and value != before:
            shown, was = (",".join(map(str, v)) if name == "hidden" else v for v in (value, before))
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {shown}: {args.resume} was begun with {was}")
    config = dataclasses.replace(checkpoint.config, **given)
    if config.steps < checkpoint.step:
        raise ConfigError(f"--steps {config.steps}: {args.resume} is at step {checkpoint.step}")
    return config


def _resumed_data(
    args: argparse.Namespace, checkpoint: Checkpoint, *, same_words: bool = True
) -> tuple[Dataset, dict[str, Any]]:
    """The words a checkpoint was trained on, or those the command line names instead."""
    named = args.file or args.data
    source = str(checkpoint.data.get("source", "embedded"))
    limit = int(checkpoint.data.get("max_word_length", MAX_WORD_LENGTH))
    if named:
        words, data = load_words(args.file, args.data or "embedded", limit)
    elif source in ("embedded", "makemore"):
        words, data = load_words(None, source, limit)
    else:
        words, data = load_words(source, "embedded", limit)
    dataset = make_dataset(words, checkpoint.config, data)
    if dataset.digest != checkpoint.data.get("digest") and (same_words or not named):
        raise CheckpointError(
            f"{data['source']}: not the words this run was trained on (SHA-256 of the words "
            f"{dataset.digest[:12]}…, then {str(checkpoint.data.get('digest'))[:12]}…)"
        )
    return dataset, data


def _write_config(
    run: RunFolder,
    config: TrainConfig,
    trainer: Trainer,
    data: dict[str, Any],
    device: torch.device,
) -> None:
    write_json(
        run.config,
        {
            "config": config.to_json(),
            "data": data,
            "engine": trainer.engine.name,
            "kernels": trainer.state.model.kernels,
            "device": str(device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        },
    )


def _print_words_and_model(
    config: TrainConfig, model: MLPLanguageModel, dataset: Dataset, data: dict[str, Any]
) -> None:
    rows = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits.items())
    hidden = "+".join(map(str, config.hidden))
    count = sum(p.numel() for p in model.parameters())
    print(f"data    {data['source']}: {data['words']} words; rows: {rows}")
    print(
        f"model   {count} parameters (T={config.block_size}, D={config.embedding_dim}, H={hidden}, "
        f"V={model.vocab_size}), {config.init} init"
    )


def _print_header(trainer: Trainer, why: str, device: torch.device) -> None:
    state = trainer.state
    _print_words_and_model(state.config, state.model, trainer.dataset, trainer.data)
    print(f"engine  {trainer.engine.name} on {device}, {torch.get_num_threads()} threads: {why}")
    if state.step:
        print(f"resumed at step {state.step}")


def _print_summary(trainer: Trainer, run: RunFolder) -> None:
    """Evaluates, writes summary.json and prints; the losses are the last two lines."""
    state, splits = trainer.state, trainer.dataset.splits
    train, dev = (evaluate(state.model, splits[name]) for name in ("train", "dev"))
    write_json(
        run.summary,
        {
            "steps": state.step,
            "seconds": trainer.seconds,
            "engine": trainer.engine.name,
            "train": dataclasses.asdict(train),
            "dev": dataclasses.asdict(dev),
        },
    )
    pace = f", {1e6 * trainer.seconds / state.step:.1f} µs a step" if state.step else ""
    print(f"{state.step} steps in {trainer.seconds:.2f} s{pace}")
    print(f"saved in {run.path}; next: mlpkern sample {shlex.quote(str(run.path))}")
    print(f"train loss {train.loss:.4f}")
    print(f"dev loss   {dev.loss:.4f}")
