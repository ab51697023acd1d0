"""The folder of a run: what lies where, and the rule that nothing is overwritten unasked.

config.json         settings, data, engine, versions: for reading; resuming does not need it
log.csv             step, lr, train_loss, dev_loss, seconds
model.safetensors   the checkpoint: parameters, state and settings in one file (checkpoint.py)
best.safetensors    the same at the step with the lowest dev loss of all that were taken
summary.json        losses of the finished run
embedding.png, …    pictures of it (`picture`), which the commands that draw them may replace
events.out.tfevents.*   what TensorBoard reads, where it was asked for
.lock               while a process writes here: which one (folder_lock.py)
.NAME.XXXXXXXX.tmp  where a file is in the making (atomic_write.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlpkern.lm.atomic_write import is_leftover, remove_leftovers
from mlpkern.lm.errors import CheckpointError, ConfigError, WriteError
from mlpkern.lm.saved.folder_lock import FolderLock, is_of_a_lock

__all__ = ["CHECKPOINTS", "PICTURES", "RunFolder"]

CHECKPOINTS = ("best", "last")
PICTURES = ("embedding", "loss", "lr", "confusion", "curves")


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """Settings, words, engine and versions, for reading."""
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        """The log, a row every ``log_every`` steps."""
        return self.path / "log.csv"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "model.safetensors"

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest dev loss."""
        return self.path / "best.safetensors"

    @property
    def summary(self) -> Path:
        """The losses over whole splits, of a run that has ended."""
        return self.path / "summary.json"

    def picture(self, kind: str) -> Path:
        """Where a picture of the run belongs: one of `PICTURES`."""
        return self.path / f"{kind}.png"

    def _files(self) -> tuple[Path, ...]:
        return (self.config, self.log, self.checkpoint, self.best, self.summary)

    def _derived(self) -> tuple[Path, ...]:
        """Files that would be wrong beside another run, but do not make a folder one of a run."""
        pictures = (self.picture(kind) for kind in PICTURES)
        return (*pictures, *self.path.glob("events.out.tfevents.*"))

    @classmethod
    def check_free(cls, path: str | Path, *, force: bool = False) -> RunFolder:
        """The folder for a new run at ``path``; touches nothing.

        CheckpointError when there is a file, a folder of something else, or a run and no ``force``.
        """
        run = cls(Path(path))
        if not run.path.exists():
            return run
        if not run.path.is_dir():
            raise CheckpointError(f"{run.path}: exists and is not a folder")
        if all(is_of_a_lock(file.name) or is_leftover(file.name) for file in run.path.iterdir()):
            return run
        if not any(file.exists() for file in run._files()):
            raise CheckpointError(f"{run.path}: is not empty and not the folder of a run")
        if not force:
            raise CheckpointError(
                f"{run.path}: holds a run; continue it with --resume {run.path}, "
                "replace it with --force, or choose another --out"
            )
        return run

    def lock(self, *, wait: float = 0.0) -> FolderLock:
        """The right to write here, for a with block; makes the folder."""
        return FolderLock(self.path, wait=wait)

    def remove_earlier(self) -> None:
        """Removes what an earlier run has left beside the checkpoint and the settings.

        For the holder of the lock, once the new run has replaced the checkpoint of an earlier one:
        that one rename ends the earlier run, and until then all of it is there.
        """
        for file in (self.best, self.log, self.summary, *self._derived()):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise WriteError.of(file, error) from None
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Removes the temporary files of a killed run; for the holder of the lock."""
        remove_leftovers(self.path, [file.name for file in self._files()])

    @classmethod
    def holding(cls, path: str | Path) -> RunFolder:
        """The folder that ``path`` is, or that the checkpoint file ``path`` lies in."""
        path = Path(path)
        return cls(path.parent if path.is_file() else path)

    @classmethod
    def checkpoint_file(cls, path: str | Path, which: str | None = None) -> Path:
        """The file ``path``, or of the run folder ``path`` the checkpoint that ``which`` names:
        "best", "last", or None for the best where there is one.

        CheckpointError when it is not there, ConfigError for another ``which``, and for the best of
        a file.
        """
        if which not in (None, *CHECKPOINTS):
            raise ConfigError(f"checkpoint must be {' or '.join(CHECKPOINTS)}, got {which!r}")
        path = Path(path)
        if path.is_file():
            if which == "best":
                raise ConfigError(f"{path}: is a file; the best checkpoint is that of a run folder")
            return path
        run = cls(path)
        if which != "last" and run.best.is_file():
            return run.best
        last = cls.open(path).checkpoint
        if which == "best":
            raise CheckpointError(
                f"{path}: no {run.best.name} in it; a run keeps one from its first dev loss on"
            )
        return last

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of an existing run; CheckpointError when there is no checkpoint in it."""
        run = cls(Path(path))
        if not run.path.is_dir():
            raise CheckpointError(f"{run.path}: no such run folder")
        if not run.checkpoint.is_file():
            why = (
                "the run stopped before its first checkpoint"
                if run.config.is_file()
                else "this is not the folder of a run"
            )
            raise CheckpointError(f"{run.path}: no {run.checkpoint.name} in it; {why}")
        return run
