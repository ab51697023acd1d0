"""The folder of a population: its files, and the rule that nothing is overwritten unless asked.

population.json     settings of all models, words: what a later call must have in common
results.csv         a row for each model that has ended
curves.csv          all loss curves, at the end and when the training is interrupted
curves.parquet      the same, where pyarrow is installed
models/             a safetensors file for each group that trains together (group_file.py), named
                    after its first model; from these a later call goes on
best/               the run of the model with the lowest dev loss
tensorboard/        a run of TensorBoard for each model, if asked for
.lock               names the process that writes here (folder_lock.py)
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpkern.lm.atomic_write import is_leftover, remove_leftovers
from mlpkern.lm.errors import CheckpointError, WriteError
from mlpkern.lm.many.kept.group_file import read_group
from mlpkern.lm.many.kept.record import PopulationRecord
from mlpkern.lm.many.snapshot import Snapshot
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved import folder_kind
from mlpkern.lm.saved.folder_lock import FolderLock, is_of_a_lock
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.words.data import Dataset


@dataclass(frozen=True)
class PopulationFolder:
    """The paths of a population."""

    path: Path

    @property
    def record(self) -> Path:
        """What is trained, see `PopulationRecord`."""
        return self.path / folder_kind.POPULATION

    @property
    def results(self) -> Path:
        """The table of the models that have ended."""
        return self.path / folder_kind.RESULTS

    @property
    def curves(self) -> Path:
        """All loss curves."""
        return self.path / "curves.csv"

    @property
    def parquet(self) -> Path:
        """All loss curves as Parquet."""
        return self.path / "curves.parquet"

    @property
    def models(self) -> Path:
        """The folder of the files of the groups."""
        return self.path / "models"

    @property
    def best(self) -> RunFolder:
        """The run of the best model."""
        return RunFolder(self.path / "best")

    @property
    def tensorboard(self) -> Path:
        """The folder with a run of TensorBoard for each model."""
        return self.path / "tensorboard"

    def group(self, first: int) -> Path:
        """The file of the group whose lowest number is ``first``."""
        return self.models / f"{first:05}.safetensors"

    def lock(self) -> FolderLock:
        """The lock of this folder, for a with block; makes the folder."""
        return FolderLock(self.path)

    @classmethod
    def open(cls, path: str | Path) -> PopulationFolder:
        """The folder of an existing population; CheckpointError for anything else."""
        folder = cls(Path(path))
        if not folder.record.is_file():
            what = "not the folder of a population" if folder.path.is_dir() else "no such folder"
            raise CheckpointError(f"{folder.path}: {what}")
        return folder

    def check(self, record: PopulationRecord, *, force: bool = False) -> None:
        """CheckpointError unless ``record`` can be trained here: in a new or empty folder, in one
        of the same population, or, with ``force``, of another. Changes nothing."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path}: exists and is not a folder")
        if not self.record.is_file():
            names = [file.name for file in self.path.iterdir()]
            if not all(is_of_a_lock(name) or is_leftover(name) for name in names):
                raise CheckpointError(
                    f"{self.path}: is not empty and not the folder of a population"
                )
        elif not force and (other := PopulationRecord.read(self.record).difference(record)):
            raise CheckpointError(
                f"{self.path}: holds another population: {other}; replace it with --force, or "
                "choose another --out"
            )

    def begin(self, record: PopulationRecord, *, force: bool = False) -> None:
        """Makes this the folder of ``record``, under its lock; ``force`` removes what is there."""
        self.check(record, force=force)
        try:
            if force:
                self._remove()
            self.models.mkdir(exist_ok=True)
        except OSError as error:
            raise WriteError.of(self.path, error) from None
        remove_leftovers(self.path, [file.name for file in self._files()])
        remove_leftovers(self.models)
        record.write(self.record)

    def read(self, configs: Sequence[TrainConfig], dataset: Dataset) -> list[dict[int, Snapshot]]:
        """The models of each group as they stand, on the device of ``dataset``."""
        return [read_group(file, configs, dataset) for file in self._groups()]

    def _groups(self) -> list[Path]:
        return sorted(self.models.glob("[0-9]*.safetensors"))

    def _files(self) -> tuple[Path, ...]:
        return (self.record, self.results, self.curves, self.parquet)

    def _remove(self) -> None:
        """Removes an earlier population: first what a later call would go on from."""
        for folder in (self.models, self.tensorboard):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
        if self.best.path.is_dir():
            with self.best.lock():
                for file in (self.best.checkpoint, self.best.config):
                    file.unlink(missing_ok=True)
                self.best.remove_earlier()
        for file in self._files():
            file.unlink(missing_ok=True)
