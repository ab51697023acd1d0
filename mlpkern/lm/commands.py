"""The commands of the command line: parsed arguments in, printed lines and files out."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any

import torch

from mlpkern.lm.atomic_write import write_json
from mlpkern.lm.checkpoint import Checkpoint, load_checkpoint, load_model, versions
from mlpkern.lm.config import DEFAULT_PRESET, PRESETS, TrainConfig
from mlpkern.lm.data import MAX_WORD_LENGTH, Dataset, build_dataset, embedded_names, read_words
from mlpkern.lm.download import makemore_names
from mlpkern.lm.engines import choose_engine
from mlpkern.lm.errors import CheckpointError, ConfigError
from mlpkern.lm.evaluate import evaluate
from mlpkern.lm.progress import make_progress
from mlpkern.lm.run_folder import RunFolder
from mlpkern.lm.sample import sample
from mlpkern.lm.train import Trainer, check_vocab

__all__ = ["evaluate_command", "sample_command", "train_command"]

# what --resume may change: how far and how often, and the learning rate of what is to come
_CHANGEABLE = {"steps", "lr", "log_every", "eval_every", "checkpoint_every"}
_SETTINGS = [field.name for field in dataclasses.fields(TrainConfig)]


def train_command(args: argparse.Namespace) -> int:
    """``mlpkern train``: a new run, or with ``--resume`` the rest of one."""
    device = _device(args.device)
    _set_threads(args.threads)
    checkpoint: Checkpoint | None = None
    if args.resume:
        run = RunFolder.open(args.resume)
        checkpoint = load_checkpoint(run.path)
        config = _resumed_config(args, checkpoint)
        dataset, data = _resumed_data(args, checkpoint)
    else:
        out = args.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}"
        run = RunFolder.check_free(out, force=args.force)
        config = dataclasses.replace(PRESETS[args.preset or DEFAULT_PRESET], **_given(args))
        limit = args.max_word_length or MAX_WORD_LENGTH
        words, data = _load_words(args.file, args.data or "embedded", limit)
        dataset = _dataset(words, config, data)
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
    device = _device(args.device)
    _set_threads(args.threads)
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
    device = _device(args.device)
    _set_threads(args.threads)
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


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of `TrainConfig` that the command line names."""
    values = {name: getattr(args, name, None) for name in _SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def _resumed_config(args: argparse.Namespace, checkpoint: Checkpoint) -> TrainConfig:
    for flag in ("out", "preset", "force", "max_word_length"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag.replace('_', '-')} does not go with --resume")
    given = _given(args)
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
        words, data = _load_words(args.file, args.data or "embedded", limit)
    elif source in ("embedded", "makemore"):
        words, data = _load_words(None, source, limit)
    else:
        words, data = _load_words(source, "embedded", limit)
    dataset = _dataset(words, checkpoint.config, data)
    if dataset.digest != checkpoint.data.get("digest") and (same_words or not named):
        raise CheckpointError(
            f"{data['source']}: not the words this run was trained on (SHA-256 of the words "
            f"{dataset.digest[:12]}…, then {str(checkpoint.data.get('digest'))[:12]}…)"
        )
    return dataset, data


def _load_words(file: str | None, data: str, limit: int) -> tuple[list[str], dict[str, Any]]:
    """The words of ``file``, or of a known list, and the record of them that a checkpoint keeps."""
    if file is None and data == "embedded":
        words, source = embedded_names(), data
    elif file is None:
        words, source = read_words(makemore_names(), max_word_length=limit), data
    else:
        words, source = read_words(file, max_word_length=limit), str(Path(file).resolve())
    return words, {"source": source, "words": len(words), "max_word_length": limit}


def _dataset(words: list[str], config: TrainConfig, data: dict[str, Any]) -> Dataset:
    dataset = build_dataset(
        words, block_size=config.block_size, split_seed=config.split_seed, source=data["source"]
    )
    data["digest"] = dataset.digest
    return dataset


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device must be cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    if threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)


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


def _print_header(trainer: Trainer, why: str, device: torch.device) -> None:
    config, model, data = trainer.state.config, trainer.state.model, trainer.data
    rows = ", ".join(f"{len(s)} {name}" for name, s in trainer.dataset.splits.items())
    hidden = "+".join(map(str, config.hidden))
    count = sum(p.numel() for p in model.parameters())
    print(f"data    {data['source']}: {data['words']} words; rows: {rows}")
    print(
        f"model   {count} parameters (T={config.block_size}, D={config.embedding_dim}, H={hidden}, "
        f"V={model.vocab_size}), {config.init} init"
    )
    print(f"engine  {trainer.engine.name} on {device}, {torch.get_num_threads()} threads: {why}")
    if trainer.state.step:
        print(f"resumed at step {trainer.state.step}")


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
