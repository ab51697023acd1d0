"""The file of a checkpoint: safetensors, with the settings of the run and a SHA-256 of it all.

The settings are JSON in the header of the file (key "mlpkern"). So one rename replaces the whole
file, and no crash can leave the parameters of one step with the state of another.

Beside them lies the SHA-256 of the settings and of every tensor (key "mlpkern.sha256"), which every
load checks: a flipped bit of a weight is an error like any other damage. The settings say that
there is one, "digest": "sha256"; files of earlier versions have none.

Format 2 added the tensors of the optimizer; a file of format 1 is one of plain SGD.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mlpkern.lm.atomic_write import replacing
from mlpkern.lm.errors import CheckpointError, LMError

FORMAT = 2
READABLE = (1, 2)
_SETTINGS = "mlpkern"
_DIGEST = "mlpkern.sha256"


class CheckpointFile(NamedTuple):
    """``verified``: whether the file has a digest, which was then checked."""

    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    verified: bool


def write_tensors(
    path: Path, settings: dict[str, Any], tensors: dict[str, Tensor], *, flushed: bool = True
) -> None:
    """Replaces the file ``path`` in one step; ``flushed``: see `replacing`. CPU tensors."""
    text = json.dumps({"format": FORMAT, **settings, "versions": versions(), "digest": "sha256"})
    metadata = {"format": "pt", _SETTINGS: text, _DIGEST: _digest(text, tensors)}
    with replacing(path, flushed=flushed) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, metadata)  # makes no copy of them
        except safetensors.SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code)) from None


def read_tensors(path: Path) -> CheckpointFile:
    """The content of the file ``path``; CheckpointError, in one line, for a file that is missing,
    damaged, or of another program or version."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with named(path):
        settings = json.loads(metadata[_SETTINGS])
        if settings["format"] not in READABLE:
            raise CheckpointError(
                f"{path}: checkpoint format {settings['format']}, this version reads "
                f"{' and '.join(map(str, READABLE))}"
            )
        verified = "digest" in settings or _DIGEST in metadata
        if verified and metadata.get(_DIGEST) != _digest(metadata[_SETTINGS], tensors):
            raise CheckpointError(f"{path}: damaged: its content does not match its SHA-256")
    return CheckpointFile(settings, tensors, verified)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in the file ``path``, from its header alone."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
    with named(path):
        return dict(json.loads(metadata[_SETTINGS]))


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turns errors from the content of ``path`` into a CheckpointError that names it."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{path}: not a checkpoint of mlpkern: no {error}") from None
    except CheckpointError:
        raise
    except (LMError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of mlpkern: {error}") from None


def versions() -> dict[str, str]:
    """The versions of Python, torch, numpy and safetensors, for the record of a run."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
    }


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file ``path``; CheckpointError if it cannot be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file: {error}") from None


def _digest(settings: str, tensors: dict[str, Tensor]) -> str:
    """The SHA-256 of the settings and, by name, of every tensor with its dtype and shape."""
    digest = hashlib.sha256(settings.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
