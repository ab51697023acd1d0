"""The exceptions of the language model; each message is one line that tells a user what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path


class LMError(ValueError):
    """An error that the command line prints as one line, with exit code 2."""


class DataError(LMError):
    """A words file that cannot be used; the message names the file and, where known, the line."""


class ConfigError(LMError):
    """A setting out of range, or settings that do not go together or exceed the machine."""


class CheckpointError(LMError):
    """A run folder or checkpoint that is missing, damaged, of another version or another shape."""


class MissingPackageError(LMError):
    """An optional package that cannot be imported; the message says why."""

    @classmethod
    def of(cls, what: str, package: str, extra: str, error: Exception) -> MissingPackageError:
        """The error after ``error`` on the import of ``package``; ``what``: "plots need"."""
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if str(missing).partition(".")[0] == {"pyyaml": "yaml"}.get(package, package):
            why = f"which is not installed: pip install 'mlpkern[{extra}]'"
        else:
            why = f"which does not import here: {' '.join(str(error).split())}"
        return cls(f"{what} {package}, {why}")


class WriteError(CheckpointError, OSError):
    """A file that cannot be written, as on a full disk."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> WriteError:
        """The error that ``error`` prevented writing ``path``."""
        if isinstance(error, cls):
            return error
        failure = cls(f"{path}: cannot be written: {error.strerror or error}")
        failure.errno = error.errno
        return failure

    def with_advice(self, advice: str) -> WriteError:
        """The same error, followed by advice."""
        failure = WriteError(f"{self}; {advice}")
        failure.errno = self.errno
        return failure

    @property
    def wrong_place(self) -> bool:
        """Whether the path is wrong (exit code 2), not the disk full or failing (1)."""
        return self.errno in _WRONG_PLACE


_WRONG_PLACE = (
    errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
    errno.EPERM, errno.EROFS,
)  # fmt: skip


class NonFiniteLossError(ArithmeticError):
    """Training stopped because the loss was not finite."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error about ``word``, which is none of ``known``: the likeliest of them.

    >>> nearest("trian", ["sample", "train"]), nearest("x", ["sample", "train"])
    ('; did you mean train?', '')
    """
    found = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""
