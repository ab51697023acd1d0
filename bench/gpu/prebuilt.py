"""The native libraries for a machine with a GPU, built on one without, to save its time.

    python -m bench.gpu.prebuilt [PYTHON]    builds them: a wheel in build/gpu-libraries

PYTHON is the interpreter of the other machine, a path or a version such as 3.12; by default this
one. mlpkern/_C is built for one version of Python, _cuda.so for any. It needs
nvcc, but no GPU. MLPKERN_CUDA_ARCHITECTURES says for which GPUs, sm_90 by default.

`take` copies the libraries into the package, if they were built from the sources of this tree and
for this Python. Imports nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import ROOT

FOLDER = ROOT / "build" / "gpu-libraries"
RECORD, CUDA = "mlpkern/_build_info.json", "mlpkern/_cuda.so"


class Unusable(Exception):
    """Why nothing can be taken. `cuda` is a _cuda.so that setup.py can still use."""

    def __init__(self, reason: str, cuda: Path | None = None):
        super().__init__(reason)
        self.cuda = cuda


def build_record() -> ModuleType:
    """mlpkern/build_record.py by itself: importing the package takes seconds."""
    path = ROOT / "mlpkern" / "build_record.py"
    spec = importlib.util.spec_from_file_location("mlpkern_build_record", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def take(folder: Path = FOLDER, root: Path = ROOT) -> str:
    """Copies the libraries of `folder` into mlpkern of the tree at `root`; says what they are.

    Raises `Unusable` where there are none, or of other sources, or for another Python.
    """
    sources = build_record().sources(root)
    native = f"mlpkern/_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    present = build_record().read(root / RECORD)
    built = present.get("native") and present.get("cuda", {}).get("built")
    there = all((root / name).exists() for name in (native, CUDA))
    if built and there and present.get("sources") == sources:
        return f"already there: {described(present)}"
    path, record = newest(folder, sources)
    with zipfile.ZipFile(path) as wheel:
        if native not in wheel.namelist():
            for name in (RECORD, CUDA):  # the record beside it is what setup.py asks for
                wheel.extract(name, folder)
            raise Unusable(f"{path.name} is for another Python: no {native}", folder / CUDA)
        for name in (native, CUDA, RECORD):  # the record last: it says that the others are there
            temporary = root / f"{name}.{os.getpid()}"
            temporary.write_bytes(wheel.read(name))
            os.replace(temporary, root / name)
    return f"taken from {path.name}: {described(record)}"


def newest(folder: Path, sources: str) -> tuple[Path, dict[str, Any]]:
    """The newest wheel and its record; raises `Unusable` unless it was built from `sources`."""
    wheels = sorted(folder.glob("mlpkern-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        raise Unusable(f"no libraries were prepared: {shown(folder)} has no wheel")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        record: dict[str, Any] = json.loads(wheel.read(RECORD))
    there = record.get("sources", "unknown")
    if there != sources:
        name = wheels[-1].name
        raise Unusable(f"{name} was built from other sources ({there}, here {sources})")
    return wheels[-1], record


def prepared(folder: Path = FOLDER, root: Path = ROOT) -> str:
    """Describes what is ready for another machine; raises `Unusable` where nothing is."""
    path, record = newest(folder, build_record().sources(root))
    return f"{path.name}: {described(record)}"


def described(record: dict[str, Any]) -> str:
    targets = record["cuda"].get("targets", "unknown targets")
    return f"sources {record['sources']}, {targets}, built {record.get('date', 'at some time')}"


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def interpreter(wanted: str) -> str:
    """The path of a Python: itself, or the one of that version on PATH or of pyenv."""
    candidates = [wanted, f"python{wanted}"]
    candidates += sorted(map(str, Path.home().glob(f".pyenv/versions/{wanted}.*/bin/python")))
    for candidate in candidates:
        found = shutil.which(candidate)
        runs = found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0
        if found and runs:
            return found
    raise SystemExit(f"bench.gpu.prebuilt: no Python {wanted}; looked for {', '.join(candidates)}")


def make(python: str, folder: Path = FOLDER) -> int:
    """Builds the wheel for `python`; the exit status."""
    fresh = folder / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    command = [python, "-m", "pip", "wheel", "--no-deps", "-w", str(fresh), str(ROOT)]
    print("+", *command, flush=True)
    required = {"MLPKERN_REQUIRE_NATIVE": "1", "MLPKERN_REQUIRE_CUDA": "1"}
    cards = {"MLPKERN_CUDA_ARCHITECTURES": "90-real"}
    status = subprocess.run(command, env={**cards, **os.environ, **required}).returncode
    for wheel in fresh.glob("*.whl"):
        for old in folder.glob("*.whl"):
            old.unlink()
        os.replace(wheel, folder / wheel.name)
        size = (folder / wheel.name).stat().st_size / 1e6
        print(f"{shown(folder / wheel.name)}, {size:.1f} MB: carry {shown(folder)} along")
    shutil.rmtree(fresh)
    return status


def main(arguments: list[str]) -> int:
    return make(interpreter(arguments[0]) if arguments else sys.executable)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
