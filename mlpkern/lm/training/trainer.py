"""The trainer: has an engine do a run in chunks; logs, evaluates and saves between them."""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlpkern.lm.arguments import as_device, check_kind
from mlpkern.lm.errors import NonFiniteLossError
from mlpkern.lm.memory import check_fits, fitting
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.model.state import TrainState, initial_model
from mlpkern.lm.saved.best import Best
from mlpkern.lm.saved.checkpoint import Checkpoint, check_vocab, load_checkpoint
from mlpkern.lm.saved.folder_lock import FolderLock
from mlpkern.lm.saved.log import LogRow
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.saved.run_words import dataset_of_run
from mlpkern.lm.saved.run_writer import RunWriter
from mlpkern.lm.training.best_keeper import BestKeeper
from mlpkern.lm.training.chunks import (
    FIRST_CHUNK,
    is_due,
    is_evaluated,
    next_length,
    steps_to_boundary,
)
from mlpkern.lm.training.divergence import divergence, first_not_finite, not_finite
from mlpkern.lm.training.engines import Engine, as_engine
from mlpkern.lm.training.evaluation import Metrics, evaluate
from mlpkern.lm.training.progress import NoProgress, Progress, display_failed
from mlpkern.lm.training.stop_signal import Interrupted, StopSignal
from mlpkern.lm.words.data import Dataset
from mlpkern.registry import check_errors


@dataclass
class Trainer:
    """A run: its state, the engine that trains it, and the work between chunks.

    Use `start` or `resume`, then `train`. Where chunks end never changes the numbers of a run.

    Attributes:
        run: folder for log and checkpoints, or None to write nothing
        lock: the lock of that folder if the caller holds it; None: `train` takes it
        data: description of the words, kept in checkpoints
        pending: losses since the last log row
        seconds: time spent on steps since step 0
        dev: metrics of the current model on dev; None: not taken
        diverged: why a finished run counts as diverged (divergence.py); None: it does not
    """

    state: TrainState
    engine: Engine
    dataset: Dataset
    run: RunFolder | None = None
    progress: Progress = field(default_factory=NoProgress)
    data: dict[str, Any] = field(default_factory=dict)
    pending: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0
    saved_step: int | None = None
    lock: FolderLock | None = None
    dev: Metrics | None = None
    diverged: str | None = None

    def __post_init__(self) -> None:
        self._writer = RunWriter(self.run, self.lock)
        self._keeper = BestKeeper(self.run, self._writer)

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        dataset: Dataset,
        engine: Engine | str = "auto",
        *,
        run: RunFolder | str | Path | None = None,
        kernels: str | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> Trainer:
        """A run before step 0.

        ``engine``: one, or a name for `choose_engine`. ``run``: CheckpointError for the path of a
        folder that holds a run; a `RunFolder` is taken as it is, and its run replaced. ``kernels``:
        the forward for dev losses, by default the engine's.
        """
        check_kind("Trainer.start", "config", config, TrainConfig, 'as in PRESETS["quick"]')
        check_kind("Trainer.start", "dataset", dataset, Dataset, "as build_dataset makes it")
        run = RunFolder.check_free(run) if isinstance(run, (str, Path)) else run
        engine = as_engine(engine, device := as_device(device))
        check_fits(f"batch_size {config.batch_size}: one batch", 8 * config.batch_size)
        kernels = kernels or engine.kernels
        with fitting(f"the model (H={'+'.join(map(str, config.hidden))})"):
            model = initial_model(config, len(dataset.vocab), kernels=kernels).to(device)
        dataset = dataset.to(device)
        state = TrainState.start(model, dataset.splits["train"], config)
        return cls(state, engine, dataset, run, **options)

    @classmethod
    def resume(
        cls,
        checkpoint: Checkpoint | str | Path,
        dataset: Dataset | None = None,
        engine: Engine | str | None = None,
        *,
        config: TrainConfig | None = None,
        run: RunFolder | str | Path | None = None,
        kernels: str | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> Trainer:
        """The run of ``checkpoint``, which continues as if it had never stopped.

        ``checkpoint``: or a run folder, in which the run then goes on. ``dataset`` and ``engine``:
        by default the words and the engine of the run. ``config``: replaces the checkpoint's, for
        more steps or other intervals. CheckpointError if ``dataset`` has another vocabulary. If
        patience had ended the run, it counts dev losses from 0 again.
        """
        if not isinstance(checkpoint, Checkpoint):
            run = RunFolder.open(checkpoint) if run is None else run
            checkpoint = load_checkpoint(checkpoint)
        if dataset is None:
            dataset, data = dataset_of_run(checkpoint)
            options = {"data": data, **options}
        run = RunFolder(Path(run)) if isinstance(run, (str, Path)) else run
        engine = as_engine(engine or checkpoint.engine or "auto", device := as_device(device))
        check_vocab(checkpoint.vocab, dataset.vocab)
        dataset = dataset.to(device)
        train = dataset.splits["train"]
        state = checkpoint.make_state(train, config, kernels or engine.kernels)
        pending = [checkpoint.pending] if len(checkpoint.pending) else []
        trainer = cls(
            state, engine, dataset, run, pending=pending, seconds=checkpoint.seconds,
            saved_step=checkpoint.step, **options,
        )  # fmt: skip
        trainer._keeper.find(checkpoint, state.config.patience)
        return trainer

    def train(self) -> None:
        """Runs to ``config.steps``, or until ``config.patience`` ends, and saves.

        RuntimeWarning if the run has diverged, see ``diverged``. `Interrupted` after Ctrl-C,
        SIGTERM or SIGHUP, with the state saved. NonFiniteLossError if a loss or parameter is not
        finite; the last good checkpoint is kept. FolderInUseError if another process writes in the
        run folder. A full disk is a RuntimeWarning during the run (`RunWriter`), at its end a
        WriteError. An error of ``progress`` is a RuntimeWarning, and the run goes on without it.
        """
        state = self.state
        longest = FIRST_CHUNK
        try:
            with self._writer.training_from(state.step), StopSignal() as stop:
                if self._keeper.is_lost:
                    self._keep_best(self._evaluate())
                while not self.ended and stop.received is None:
                    steps = min(longest, steps_to_boundary(state.config, state.step))
                    elapsed = self._advance(steps)
                    longest = next_length(steps, elapsed, longest)
                    self._after_chunk()
                    stop.deliver()
                if self.saved_step != state.step:
                    self.save()
                if stop.received is not None and not self.ended:
                    raise Interrupted(
                        state.step, stop.received, self.run.path if self.run else None
                    )
        finally:
            self._show("close")
        dev = self.dev or self._evaluate()
        self.diverged = divergence(state, dev.loss)
        if self.diverged:
            warnings.warn(f"train: {self.diverged}", RuntimeWarning, stacklevel=2)

    @property
    def best(self) -> Best:
        """The lowest dev loss so far; `best_model` is the model that had it."""
        return self._keeper.best

    @property
    def ended(self) -> bool:
        """Whether the run has done all of its steps, or its patience has ended it."""
        config = self.state.config
        return self.state.step >= config.steps or self.best.ends(config.patience)

    def best_model(self) -> MLPLanguageModel:
        """A copy of the model with the lowest dev loss so far; ConfigError before the first."""
        parameters = self._keeper.parameters()
        model = copy.deepcopy(self.state.model)
        model.load_state_dict(parameters)
        return model

    def save(self) -> None:
        """Writes a checkpoint of the current state, if there is a run folder."""
        checkpoint = self._checkpoint()
        if self.run:
            self._writer.save(checkpoint)
            self.saved_step = self.state.step

    def _checkpoint(self, dev_loss: float | None = None) -> Checkpoint:
        """The current state; NonFiniteLossError if a parameter is not finite."""
        state = self.state
        if not all(torch.isfinite(p).all() for p in state.model.state_dict().values()):
            raise self._not_finite("a parameter is not finite", state.step)
        none = torch.empty(0, dtype=torch.float32, device="cpu")
        return Checkpoint.of(
            state,
            vocab=self.dataset.vocab,
            pending=torch.cat(self.pending) if self.pending else none,
            seconds=self.seconds,
            engine=self.engine.name,
            data=self.data,
            dev_loss=dev_loss,
            waited=self.best.waited,
        )

    def _advance(self, steps: int) -> float:
        """Trains one chunk; returns the seconds it took."""
        first = self.state.step
        began = time.perf_counter()
        losses = self.engine.run_chunk(self.state, steps).cpu()  # (steps,)
        elapsed = time.perf_counter() - began
        bad = first_not_finite(losses)
        self._take(losses[:bad], first, elapsed / steps)
        if bad is not None:
            raise self._not_finite(f"the loss is {losses[bad].item()}", first + bad)
        self.dev = None
        self.seconds += elapsed
        self._show("advance", steps)
        return elapsed

    def _take(self, losses: Tensor, first: int, pace: float) -> None:
        """Makes log rows of the losses from step ``first`` on; a step took ``pace`` seconds."""
        every, step = self.state.config.log_interval, first
        while len(losses):
            part = losses[: every - step % every]
            losses = losses[len(part) :]
            self.pending.append(part)
            step += len(part)
            if is_due(step, every) and not is_evaluated(self.state.config, step):
                self._log_row(step, self.seconds + (step - first) * pace, None)
        self._writer.flush()

    def _after_chunk(self) -> None:
        """Takes the dev loss and writes the checkpoint if they are due at this step."""
        config, step = self.state.config, self.state.step
        if is_evaluated(config, step):
            dev = self._evaluate()
            self._log_row(step, self.seconds, dev.loss)
            self._writer.flush()
            self._keep_best(dev)
        if self.run and step != config.steps:
            path = self.run.checkpoint
            if is_due(step, config.checkpoint_interval) or self._writer.is_due(path):
                self._writer.attempt(path, self.save)

    def _evaluate(self) -> Metrics:
        self.dev = evaluate(self.state.model, self.dataset.splits["dev"])
        return self.dev

    def _keep_best(self, dev: Metrics) -> None:
        self._keeper.take(self.state.step, dev.loss, self._checkpoint)

    def _log_row(self, step: int, seconds: float, dev_loss: float | None) -> None:
        check_errors()
        loss = torch.cat(self.pending).mean(dtype=torch.float64).item()
        self.pending.clear()
        lr = self.state.config.learning_rates(step - 1, 1).item()
        row = LogRow(step, lr, loss, dev_loss, seconds)
        self._writer.row(row)
        self._show("row", row)

    def _show(self, call: str, *values: Any) -> None:
        """Calls a method of ``progress``, whose errors never end a training."""
        try:
            getattr(self.progress, call)(*values)
        except Exception as error:
            self.progress = NoProgress()
            display_failed(error)

    def _not_finite(self, what: str, step: int) -> NonFiniteLossError:
        kept = []
        if self.run and self.saved_step is not None:
            kept.append(f"the checkpoint of step {self.saved_step}")
        if self.run and self.best.step is not None:
            kept.append(f"the best model (step {self.best.step})")
        said = "no checkpoint was written"
        if self.run and kept:
            said = f"{' and '.join(kept)} {'are' if kept[1:] else 'is'} kept in {self.run.path}"
        return not_finite(f"{what}; training stopped, {said}", step)
