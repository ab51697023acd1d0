"""The folder of a run: its files, and the rule that nothing is overwritten unless asked.

config.json         settings, data, engine, versions: for reading; resuming does not need it
log.csv             step, lr, train_loss, dev_loss, seconds
model.safetensors   the last checkpoint: parameters, state and settings (checkpoint.py)
best.safetensors    the same at the step with the lowest dev loss
summary.json        losses of the finished run
embedding.png, …    pictures (`RunFolder.picture`), which the commands that draw them may replace
events.out.tfevents.*   for TensorBoard, if asked for
.lock               names the process that writes here (folder_lock.py)
.NAME.XXXXXXXX.tmp  a file being written (atomic_write.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlpkern.lm.atomic_write import is_leftover, remove_leftovers
from mlpkern.lm.errors import CheckpointError, ConfigError, WriteError
from mlpkern.lm.saved.folder_lock import FolderLock, is_of_a_lock

CHECKPOINTS = ("best", "last")
PICTURES = ("embedding", "loss", "lr", "confusion", "curves")


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run; goes wherever the path of a run folder does."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def __fspath__(self) -> str:
        return str(self.path)

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
        """The file of a picture of the run; ``kind``: one of `PICTURES`."""
        return self.path / f"{kind}.png"

    def _files(self) -> tuple[Path, ...]:
        return (self.config, self.log, self.checkpoint, self.best, self.summary)

    def _derived(self) -> tuple[Path, ...]:
        """Files made from a run: wrong beside another run, but not what makes a run folder."""
        pictures = (self.picture(kind) for kind in PICTURES)
        return (*pictures, *self.path.glob("events.out.tfevents.*"))

    @classmethod
    def check_free(cls, path: str | Path, *, force: bool = False) -> RunFolder:
        """The folder for a new run at ``path``; changes nothing on disk.

        CheckpointError if it is a file, a folder of something else, or has a run and not ``force``.
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
        """The lock of this folder, for a with block; makes the folder."""
        return FolderLock(self.path, wait=wait)

    def remove_earlier(self) -> None:
        """Removes the files of an earlier run, except for the checkpoint and the settings.

        For the holder of the lock, after the new run has replaced the checkpoint of the earlier
        one: that rename ends the earlier run, whose files are complete until then.
        """
        for file in (self.best, self.log, self.summary, *self._derived()):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise WriteError.of(file, error) from None
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Removes temporary files that a killed process left; for the holder of the lock."""
        remove_leftovers(self.path, [file.name for file in self._files()])

    @classmethod
    def holding(cls, path: str | Path) -> RunFolder:
        """The folder ``path``, or the folder that contains the checkpoint file ``path``."""
        path = Path(path)
        return cls(path.parent if path.is_file() else path)

    @classmethod
    def checkpoint_file(cls, path: str | Path, which: str | None = None) -> Path:
        """The file ``path``, or the checkpoint ``which`` of the run folder ``path``.

        ``which``: "best", "last", or None for the best if there is one, else the last.

        CheckpointError if it does not exist. ConfigError for another ``which``, and for the best of
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
        """The folder of an existing run; CheckpointError if it has no checkpoint."""
        run = cls(Path(path))
        if not run.path.is_dir():
            raise CheckpointError(f"{run.path}: no such run folder")
        if not run.checkpoint.is_file():
            best = cls(run.path / "best")  # of a sweep or a population
            if best.checkpoint.is_file():
                why = f"its best run is {best.path}"
            elif run.config.is_file():
                why = "the run stopped before its first checkpoint"
            else:
                why = "this is not the folder of a run"
            raise CheckpointError(f"{run.path}: no {run.checkpoint.name} in it; {why}")
        return run
