"""The build of ``_cuda.so``: its targets, chosen by CMake, and the library.

No GPU is needed, but nvcc, cmake and ninja: ``make cuda-check`` has them.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.cuda import need

import mlpkern

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(mlpkern.__file__).with_name("_cuda.so")


# The targets


def fake(folder: Path, name: str, lines: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


def fake_nvcc(folder: Path, release: str, known: str) -> Path:
    version = f"echo 'Cuda compilation tools, release {release}, V{release}.1'"
    knows = f"printf 'compute_%s\\n' {known}"
    lines = f"case $1 in --version) {version};; --list-gpu-arch) {knows};; *) exit 1;; esac"
    return fake(folder, "nvcc", lines)


def configured(folder: Path, wanted: str = "", cards: str = "", **variables: str) -> dict:
    """What CMake decides about CUDA on a machine with GPUs of these compute capabilities."""
    need(shutil.which("cmake"), "cmake")
    need(shutil.which("ninja"), "ninja")
    fake(folder, "nvidia-smi", f"printf '%s\\n' {cards}" if cards else "exit 9")
    fake(folder, "__nvcc_device_query", "exit 1")
    subprocess.run(
        [
            *("cmake", "-S", ROOT, "-B", folder / "build", "-G", "Ninja", "-DMLPKERN_PYTHON=OFF"),
            *(f"-DMLPKERN_CUDA_ARCHITECTURES={wanted}", "-DMLPKERN_ISAS=baseline"),
        ],
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **variables},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return json.loads((folder / "build" / "configured.json").read_text())["cuda"]


CUDA_13 = "75 80 86 87 88 89 90 100 110 103 120 121"
ALL = "sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 compute_120"


@pytest.mark.parametrize(
    ("wanted", "cards", "targets"),
    [
        ("all", "", ALL),
        ("all", "9.0", ALL),
        ("", "9.0", "sm_90"),
        ("native", "8.6 9.0 9.0", "sm_86 sm_90"),
        ("", "7.5 8.0", "sm_80"),  # the kernels need sm_80
        ("", "12.2", "sm_121"),  # machine code of the same generation
        ("", "13.0", "compute_121"),  # a generation that this nvcc does not know
        ("90", "", "sm_90 compute_90"),
        ("80-real,90-virtual", "8.9", "sm_80 compute_90"),
        ("90a-real", "", "sm_90a"),
    ],
)
def test_targets(tmp_path: Path, wanted: str, cards: str, targets: str) -> None:
    fake_nvcc(tmp_path, "13.0", CUDA_13)
    cuda = configured(tmp_path, wanted, cards)
    assert cuda == {
        "reason": "",
        "nvcc": f"{tmp_path / 'nvcc'} 13.0",
        "targets": targets,
        "note": "",
    }


def test_an_old_nvcc_leaves_out_what_it_does_not_know(tmp_path: Path) -> None:
    fake_nvcc(tmp_path, "12.4", "50 80 86 87 89 90")
    cuda = configured(tmp_path, "all")
    assert cuda["reason"] == ""
    assert cuda["targets"] == "sm_80 sm_86 sm_89 sm_90 compute_90"
    assert cuda["note"] == "CUDA 12.4 does not know sm_100, sm_120: built without"


@pytest.mark.parametrize(
    ("wanted", "known", "variables", "reason"),
    [
        ("90;130", CUDA_13, {}, "CUDA 13.0 does not know sm_130, named in"),
        ("9.0", CUDA_13, {}, "MLPKERN_CUDA_ARCHITECTURES has 9.0, expected all, native, or"),
        ("", CUDA_13, {}, "is there, but no card from sm_80 on is visible (MLPKERN_CUDA_ARCHIT"),
        ("native", CUDA_13, {}, "is there, but no card from sm_80 on is visible (MLPKERN_CUDA_"),
        ("", "35 50 75", {}, "is CUDA 13.0, which does not know sm_80"),
        ("", CUDA_13, {"CUDACXX": "/nowhere/nvcc"}, "CUDACXX names /nowhere/nvcc, which was not"),
        ("", CUDA_13, {"CUDACXX": "false"}, "false --version failed (1)"),
    ],
)
def test_no_cuda_says_why(
    tmp_path: Path, wanted: str, known: str, variables: dict, reason: str
) -> None:
    fake_nvcc(tmp_path, "13.0", known)
    cuda = configured(tmp_path, wanted, **variables)
    assert reason in cuda["reason"]


@pytest.mark.parametrize(
    "source", sorted((ROOT / "csrc" / "cuda").glob("*.cu")), ids=lambda p: p.stem
)
def test_a_changed_header_compiles_what_includes_it(tmp_path: Path, source: Path) -> None:
    fake_nvcc(tmp_path, "13.0", CUDA_13)
    configured(tmp_path, "90")
    build = tmp_path / "build"
    command = ["ninja", "-C", build, "-t", "query", f"csrc/cuda/{source.stem}.o"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = {line.strip(" |") for line in said.splitlines()}
    compiler = shutil.which("g++")
    need(compiler, "g++")
    # -MG: headers that are not found are those of CUDA.
    asked = [compiler, "-x", "c++", "-std=c++17", "-MM", "-MG", f"-I{ROOT / 'csrc'}", source]
    rule = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    headers = {word for word in rule.split() if word.startswith(str(ROOT)) and word != str(source)}
    assert headers
    assert headers <= known


def test_a_launcher_before_the_compiler_is_not_taken_for_one(tmp_path: Path) -> None:
    fake_nvcc(tmp_path, "13.0", CUDA_13)
    need(shutil.which("g++"), "g++")
    launcher = fake(tmp_path, "launcher", 'exec "$@"')
    configured(tmp_path, "90", CXX=f"{launcher} g++")
    text = (tmp_path / "build" / "build.ninja").read_text()
    assert "nvcc -std=c++17" in text
    assert f"-ccbin={launcher}" not in text


# The library


@pytest.fixture
def library() -> Path:
    if not LIBRARY.exists():
        need(False, "mlpkern/_cuda.so")
    return LIBRARY


def test_one_symbol_is_exported_and_no_runtime_is_needed(library: Path) -> None:
    shown = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in shown.stdout.splitlines()] == ["mlpkern_cuda_library"]
    shown = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    needed = [line.split("[")[1] for line in shown.stdout.splitlines() if "(NEEDED)" in line]
    assert not [name for name in needed if name.startswith(("libcuda", "libtorch", "libpython"))]


def test_the_library_loads_without_a_driver(library: Path) -> None:
    table = ctypes.CDLL(str(library)).mlpkern_cuda_library
    table.restype = ctypes.c_void_p
    assert table()
