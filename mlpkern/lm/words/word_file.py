"""The words in a file: a path, standard input or a pipe, plain or compressed by gzip.

The data of a pipe cannot be read again, so the record of a run says that they came from one.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import sys
import warnings
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

from mlpkern.lm.arguments import check_kind
from mlpkern.lm.errors import DataError
from mlpkern.lm.words.text import BOUNDARIES, TextOptions, sequences

MAX_WORD_LENGTH = 100
BOUNDARY = BOUNDARIES["char"]

STANDARD_INPUT, PIPE = "standard input", "a pipe"  # recorded instead of a path
_NAMES_OF_STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
HINT = "; --level word reads a text word by word, with --running paragraph by paragraph"
_GZIP = b"\x1f\x8b"  # no UTF-8 text begins with it
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


def read_words(
    path: str | Path, *, max_word_length: int = MAX_WORD_LENGTH, text: TextOptions | None = None
) -> list[str]:
    """The words of a UTF-8 text file with one word a line, in order and with repetitions; at level
    "word" its sequences, of any length and with any symbols but control characters.

    The path "-" is standard input. Data compressed by gzip are decompressed, whatever the name.

    Blank lines, spaces around a word, a byte-order mark and any kind of line ending are dropped.
    DataError, with file and line, if the file is missing, not a file, empty or not UTF-8, or if it
    has a control character, a word with the boundary "." or one longer than ``max_word_length``.
    """
    source = STANDARD_INPUT if str(path) == "-" else str(path)
    raw = _content(path, source)
    return parse_words(raw, source, max_word_length=max_word_length, text=text)


def embedded_names(*, text: TextOptions | None = None) -> list[str]:
    """The list of given names that comes with the package."""
    source = resources.files("mlpkern.lm.words") / "names.txt"
    try:
        raw = source.read_bytes()
    except OSError:
        raise DataError(
            f"{source}: the embedded names list is missing from this installation; give a file"
        ) from None
    return parse_words(raw, "embedded names", text=text)


def parse_words(
    raw: bytes,
    source: str,
    *,
    max_word_length: int = MAX_WORD_LENGTH,
    text: TextOptions | None = None,
) -> list[str]:
    """The words in the bytes of a text file, see `read_words`; messages call it ``source``."""
    options = TextOptions() if text is None else text
    check_kind("read_words", "text", options, TextOptions, 'as in TextOptions(level="word")')
    content = _decoded(raw, source).replace("\r\n", "\n").replace("\r", "\n")
    if options.lower:
        content = content.lower()
    if options.level == "word":
        return sequences(content, source, options)
    words = []
    for number, word in enumerate(map(str.strip, content.split("\n")), 1):
        if not word:
            continue
        if BOUNDARY in word:
            raise DataError(
                f"{source}, line {number}: {_shown(word)} contains {BOUNDARY!r}, "
                f"which marks the boundary of a word{_hint(word)}"
            )
        if len(word) > max_word_length:
            raise DataError(
                f"{source}, line {number}: a word of {len(word)} symbols is longer than the limit "
                f"of {max_word_length} (--max-word-length); one word a line is expected"
                f"{_hint(word)}"
            )
        if control := _CONTROL.search(word):
            raise DataError(
                f"{source}, line {number}: control character U+{ord(control[0]):04X}; "
                "is this a text file?"
            )
        words.append(word)
    if not words:
        raise DataError(f"{source}: holds no words; one word a line is expected")
    if 2 * sum(map(_is_sentence, words)) > len(words):
        warnings.warn(
            f"{source}: most lines hold several words, each line is read as one{HINT}",
            RuntimeWarning,
            stacklevel=3,
        )
    return words


def _decoded(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + (3 if raw.startswith(b"\xef\xbb\xbf") else 0)
        line = raw.count(b"\n", 0, start) + 1
        column = start - (raw.rfind(b"\n", 0, start) + 1) + 1
        raise DataError(
            f"{source}, line {line}: not UTF-8: 0x{raw[start]:02x} at byte {column} of the line"
        ) from None


def recorded_source(path: str) -> str:
    """What the record of a run says of ``path``: the name of a file, or that it was a pipe."""
    if path != "-":
        if stat.S_ISREG(os.stat(path).st_mode):  # with `< names.txt` /dev/stdin is a file as well
            return os.path.realpath(path) if os.path.isabs(path) else path
        if path not in _NAMES_OF_STANDARD_INPUT:
            return PIPE
    return STANDARD_INPUT


def shareable(record: dict[str, Any]) -> dict[str, Any]:
    """The ``record`` of words as files keep it, which may be given away: no absolute path.

    Such a path becomes one from the current folder or, where the two have nothing in common, from
    the home folder (``~``); of a file in another user's home folder only the name is left.
    """
    if not os.path.isabs(file := str(record.get("source", ""))):
        return record
    here, home = os.getcwd(), os.path.expanduser("~")
    relative, common = os.path.relpath(file, here), os.path.commonpath([file, here])
    if common == os.path.dirname(common) and os.path.commonpath([file, home]) == home:
        relative = os.path.join("~", os.path.relpath(file, home))
    elif not {"home", "Users"}.isdisjoint(Path(relative).parts):
        relative = os.path.basename(file)
    return {**record, "source": relative}


def places_of(source: str, run: Path | None) -> list[Path]:
    """The files that a recorded ``source`` may mean, the likeliest first.

    They are looked for from the current folder, then from the folder ``run`` and those above it,
    where they still are after the run was moved together with its words; first by the path, then by
    the name alone. DataError if the source was a pipe.
    """
    if source in (STANDARD_INPUT, PIPE):
        raise DataError(
            f"the words of this run came from {source}, which is read once; name a FILE that holds "
            "them"
        )
    path = Path(os.path.expanduser(source))
    folders = [Path(), *([run, *run.resolve().parents] if run else [])]
    found = [folder / name for name in (path, path.name) for folder in folders]
    return list(dict.fromkeys(place for place in found if place.is_file()))


def _content(path: str | Path, source: str) -> bytes:
    """The content of ``path`` or, for "-", of standard input; gzip data are decompressed, whatever
    the name. DataError if it cannot be read or the compressed data are damaged."""
    try:
        raw = _standard_input() if str(path) == "-" else Path(path).read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except IsADirectoryError:
        raise DataError(
            f"{source}: is a directory; give a text file with one word a line"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{source}: damaged or cut gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from None


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise DataError(f"{STANDARD_INPUT}: is closed; give a file")
    return sys.stdin.buffer.read()


def _is_sentence(line: str) -> bool:
    return line.count(" ") >= 3


def _hint(line: str) -> str:
    return HINT if _is_sentence(line) else ""


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + "…")
