"""A command in a terminal of a given width, and what its screen then shows."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import struct
import subprocess
import sys
import termios
from pathlib import Path

import mlpkern


def on_a_terminal(*arguments, columns, code=0, largest_file=resource.RLIM_INFINITY):
    """The lines that ``mlpkern`` with these arguments leaves on a terminal.

    ``largest_file``: no file can grow beyond so many bytes.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "mlpkern", *map(str, arguments)]
    package = {"PYTHONPATH": str(Path(mlpkern.__file__).parents[1])}  # the same, from any folder
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | package,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard)),
    ) as process:  # fmt: skip
        os.close(theirs)
        raw = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    text = raw.decode()
    assert process.returncode == code, text
    return screen(text, columns)


def screen(text, columns):
    """The lines on a screen, and above it, after ``text``; a longer line goes on in the next.

    Understood are the ends of lines, returns to the beginning, and up and clearing to the end of
    the line, all that tqdm sends.
    """
    cells: list[list[str]] = [[]]
    row = column = 0
    for piece in re.findall(r"\x1b\[[\d;]*[A-Za-z]|.", text, re.S):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
        elif piece == "\x1b[A":
            row -= 1
        elif piece == "\x1b[K":
            del cells[row][column:]
        else:
            assert piece.isprintable(), f"unexpected {piece!r}"
            if column == columns:
                row, column = row + 1, 0
            cells += [[] for _ in range(row + 1 - len(cells))]
            line = cells[row]
            line += " " * (column + 1 - len(line))
            line[column] = piece
            column += 1
        cells += [[] for _ in range(row + 1 - len(cells))]
    return ["".join(line).rstrip() for line in cells]


def _read(descriptor):
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the process has closed the other end
        return b""
