"""Wheels and source distributions: their files, and that they run once installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.installing import LITTLE, Environment, libraries, packaging

import mlpkern


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built under isolation in an environment that has no torch."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "bare")], check=True)
    subprocess.run(
        [folder / "bare/bin/python", "-m", "pip", "wheel", "--no-deps", "-w", folder, tree],
        env={**os.environ, **LITTLE, "MLPKERN_REQUIRE_NATIVE": "1", "MLPKERN_REQUIRE_CUDA": ""},
        check=True,
    )
    return next(folder.glob("*.whl"))


@packaging
def test_wheel_holds_the_package_and_nothing_stale(tree: Path, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert [name for name in names if name.endswith(".so") and "_C" in name] == [
        f"mlpkern/_C{suffix}"
    ]
    for path in sorted((tree / "mlpkern").rglob("*.py")):
        assert path.relative_to(tree).as_posix() in names
    for name in ("py.typed", "_build_info.json", "_C.pyi", "lm/words/names.txt"):
        assert f"mlpkern/{name}" in names
    assert not [name for name in names if name.startswith(("csrc", "tests", "bench"))]
    assert "any" not in wheel.name.split("-")[-1]


@packaging
def test_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(str(wheel))
    facts = environment.exercise()
    assert Path(facts["file"]).is_relative_to(tmp_path / "venv")
    assert facts["native"]["loaded"]
    assert facts["versions"]["mlpkern"] == mlpkern.__version__
    text = environment.run("-m", "mlpkern", "info", cwd=tmp_path)
    assert "available: compiled C++" in text


@packaging
def test_sdist_holds_what_a_build_needs(tree: Path, tmp_path: Path) -> None:
    code = "from setuptools import build_meta as b; print(b.build_sdist(__import__('sys').argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path)
    source = next(path for path in tmp_path.iterdir() if path.is_dir())
    for name in (
        "CMakeLists.txt",
        "setup.py",
        "LICENSE",
        "csrc/kernels.h",
        "tests/cpp/testing.h",
        "csrc/cuda/CMakeLists.txt",
        "csrc/cuda/exports.map",
        "csrc/cuda/library.cu",
    ):
        assert (source / name).is_file(), name
    assert libraries(source) == []
    environment = Environment(tmp_path / "venv")
    environment.install(str(source), MLPKERN_REQUIRE_NATIVE="1")
    facts = environment.exercise()
    assert Path(facts["file"]).is_relative_to(tmp_path / "venv")
    assert facts["native"]["isas"] == ["baseline"]


@packaging
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_python_builds_a_library_that_loads(tree: Path, tmp_path: Path, version: str) -> None:
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        pytest.skip("the version that runs the tests: the cases above build for it")
    python = find_python(version)
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    done = subprocess.run(
        [tmp_path / "venv/bin/python", "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, tree],
        env={
            **os.environ,
            **LITTLE,
            "MLPKERN_REQUIRE_NATIVE": "1",
            "MLPKERN_REQUIRE_CUDA": "",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tag = "cpython-" + version.replace(".", "")
    assert [name for name in names if name.startswith(f"mlpkern/_C.{tag}")]


def find_python(version: str) -> str:
    """A Python interpreter of this version, or a skip."""
    candidates = [f"python{version}"]
    candidates += sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    for candidate in candidates:
        found = shutil.which(candidate)
        asked = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        if found:
            answer = subprocess.run([found, "-c", asked], capture_output=True, text=True)
            if answer.stdout.strip() == version:
                return found
    pytest.skip(f"Python {version} is not installed")
