"""The list of names of the makemore project: downloaded once, checked, kept in a cache folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from mlpkern.lm.atomic_write import write_bytes
from mlpkern.lm.errors import DataError, WriteError

MAKEMORE_URL = "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt"
MAKEMORE_SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
TIMEOUT_SECONDS = 30
MAX_BYTES = 1 << 20  # the file has 228,145; a wrong answer may be endless


def cache_folder() -> Path:
    """``$MLPKERN_CACHE``, else ``$XDG_CACHE_HOME/mlpkern``, else ``~/.cache/mlpkern``."""
    if own := os.environ.get("MLPKERN_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # by the XDG specification a relative path is invalid and ignored
    if os.path.isabs(base):
        return Path(base) / "mlpkern"
    try:
        return Path.home() / ".cache" / "mlpkern"
    except RuntimeError:  # not set, and the system knows none
        raise DataError("no home folder is known; set MLPKERN_CACHE to a folder") from None


def makemore_names() -> Path:
    """The path of the 32,033 makemore names, downloaded on first use.

    DataError if the file is neither cached nor reachable (the message says which file to put
    where), or if the download is not the expected list; WriteError if it cannot be stored.
    """
    path = cache_folder() / "makemore-names.txt"
    try:
        if path.is_file() and _digest(path.read_bytes()) == MAKEMORE_SHA256:
            return path
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        with urllib.request.urlopen(MAKEMORE_URL, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read(MAX_BYTES)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"cannot download {MAKEMORE_URL} ({reason}); without a network, put that file at "
            f"{path} or give its path: mlpkern train names.txt"
        ) from None
    if _digest(content) != MAKEMORE_SHA256:
        raise DataError(
            f"{MAKEMORE_URL}: the download is not the expected list (SHA-256 {_digest(content)}, "
            f"expected {MAKEMORE_SHA256}); it was not kept"
        )
    try:
        write_bytes(path, content)
    except WriteError as error:
        raise error.with_advice("set MLPKERN_CACHE to a writable folder") from None
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
