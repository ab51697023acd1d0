"""Every kernel file names the command that compiles it alone, and the command works.

By default g++ only parses and nvcc compiles the smallest file; ``make compile-alone`` runs every
command as it is written.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = os.environ.get("MLPKERN_COMPILE_ALONE") == "1"
SOURCES = [*sorted((ROOT / "csrc/cpu").glob("*.cpp")), *sorted((ROOT / "csrc/cuda").glob("*.cu"))]


def command_of(source: Path) -> list[str]:
    """The command below "Compile alone:" in the comment that opens the file."""
    found = re.search(r"^// Compile alone:\n// (.+)\n#include", source.read_text("utf-8"), re.M)
    assert found, f"{source.name}: no line 'Compile alone:' with a command at its end"
    return shlex.split(found[1])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_command_compiles_the_file(source: Path, tmp_path: Path) -> None:
    command = command_of(source)
    assert command[-1] == source.relative_to(ROOT).as_posix()
    assert command[0] == {".cpp": "g++", ".cu": "nvcc"}[source.suffix]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    target = tmp_path / "object"
    command += ["-o", str(target)]
    if not EVERYTHING and command[0] == "nvcc" and source.stem != "library":
        pytest.skip("nvcc takes long: make compile-alone")
    if not EVERYTHING and command[0] == "g++":
        command += ["-fsyntax-only"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert target.is_file() or "-fsyntax-only" in command
