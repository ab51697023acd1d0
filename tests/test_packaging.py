"""Installing the package: the build record, wheels and sdists, and machines that lack something.

Most cases build in copies of the tree and install into environments of their own, layered over the
running one so that torch need not be installed again. They are marked ``packaging``:
``pytest -m packaging tests/test_packaging.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpkern import info

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "out", "results", "*.egg-info", "*.so", "_build_info.json",
    "__pycache__", ".*_cache",
)  # fmt: skip

# One training step on the backend that serves; prints the facts of `mlpkern info` as JSON.
EXERCISE = """
import json, sys, torch, mlpkern
from mlpkern import info
e, w, b = (torch.randn(*s, requires_grad=True) for s in ((27, 10), (27, 30), (27,)))
ids = torch.randint(27, (8, 3))
h = mlpkern.linear_tanh(mlpkern.embedding_gather(ids, e), w, b)
torch.testing.assert_close(h, torch.tanh(torch.nn.functional.linear(e[ids].flatten(1), w, b)))
mlpkern.cross_entropy(h, ids[:, 0]).backward()
assert e.grad.abs().sum() > 0
from mlpkern.lm import data
facts = info.collect()
facts.update(file=mlpkern.__file__, explain=mlpkern.explain("linear_tanh", torch.ones(2, 30), w, b))
facts.update(report=info.report())
print(json.dumps(facts))
"""


# Most cases build without nvcc, for their time's sake; it may be anywhere, so it cannot be hidden.
NO_NVCC = {"CUDACXX": "/nowhere/nvcc"}
TINY_CUDA = """
__global__ void tiny_kernel(float* x) { x[threadIdx.x] = 1; }
extern "C" const void* mlpkern_cuda_library() { return nullptr; }
const void* tiny = (const void*)tiny_kernel;
"""


def packaging(function):
    return pytest.mark.packaging(function)


class Environment:
    """A virtual environment that sees the packages of the running one."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        self.python = folder / "bin" / "python"
        site = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        # A plain line: the .pth files in that folder, such as an editable install's, stay unread.
        Path(site, "layer.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(
        self, *arguments: str, check: bool = True, cwd: Path | None = None, **extra: str
    ) -> str:
        variables = {k: v for k, v in os.environ.items() if not k.startswith("MLPKERN_")}
        done = subprocess.run(
            [str(self.python), *arguments],
            env={**variables, **NO_NVCC, **extra},
            cwd=cwd or self.python.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert (done.returncode == 0) == check, done.stdout
        return done.stdout

    def install(self, *arguments: str, check: bool = True, **extra: str) -> str:
        return self.run("-m", "pip", "install", "--no-deps", *arguments, check=check, **extra)

    def exercise(self) -> dict:
        return json.loads(self.run("-c", EXERCISE).splitlines()[-1])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources as a clone has them."""
    copy = tmp_path_factory.mktemp("tree") / "mlpkern"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCES)
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built under isolation in an environment that has no torch."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "bare")], check=True)
    subprocess.run(
        [folder / "bare/bin/python", "-m", "pip", "wheel", "--no-deps", "-w", folder, tree],
        env={**os.environ, **NO_NVCC, "MLPKERN_REQUIRE_NATIVE": "1", "MLPKERN_REQUIRE_CUDA": ""},
        check=True,
    )
    return next(folder.glob("*.whl"))


def read_record(tree: Path) -> dict:
    return json.loads((tree / "mlpkern" / "_build_info.json").read_text(encoding="utf-8"))


def libraries(tree: Path) -> list[str]:
    return [path.name for path in (tree / "mlpkern").glob("*.so")]


# --- Every run -----------------------------------------------------------------------------------
def test_build_record_is_complete() -> None:
    record = info.build_info()
    assert record["native"] == (record["reason"] == "")
    assert set(record["cuda"]) >= {"built", "reason"}
    assert record["cuda"]["built"] == (record["cuda"]["reason"] == "")
    for key in ("compiler", "isas", "build_seconds", "python", "version", "date", "output"):
        assert key in record
    if record["native"]:
        assert "baseline" in record["isas"]
        assert record["build_seconds"] > 0


def test_no_record_and_a_broken_one_read_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "PACKAGE", tmp_path)
    assert info.build_info() == {}
    for text in ("", "[1]", '{"native": tr'):
        (tmp_path / "_build_info.json").write_text(text)
        assert info.build_info() == {}


# --- Editable installs, in this order, in one tree -----------------------------------------------
@packaging
def test_no_compiler_leaves_the_reference_and_a_reason(
    environment: Environment, tree: Path
) -> None:
    nowhere = str(environment.python.parent)  # a PATH without c++, g++, clang++
    environment.install("-e", str(tree), PATH=nowhere)
    assert libraries(tree) == []
    facts = environment.exercise()
    assert Path(facts["file"]).parent == tree / "mlpkern"
    assert facts["build"]["native"] is False
    assert "no C++ compiler" in facts["build"]["reason"]
    assert "no C++ compiler" in facts["backends"]["cpu"]["reason"]
    assert "no C++ compiler" in facts["report"]
    assert facts["explain"].startswith("linear_tanh runs on reference")


@packaging
def test_native_can_be_required(environment: Environment, tree: Path) -> None:
    output = environment.install(
        "-e", str(tree), CXX="/nowhere/g++", MLPKERN_REQUIRE_NATIVE="1", check=False
    )
    assert "MLPKERN_REQUIRE_NATIVE is set" in output
    assert "/nowhere/g++" in output


@packaging
def test_editable_install_builds_the_library(environment: Environment, tree: Path) -> None:
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1")
    facts = environment.exercise()
    assert facts["native"]["loaded"]
    assert facts["native"]["stale"] == ""
    assert facts["explain"].startswith("linear_tanh runs on cpu")
    assert not facts["build"]["cuda"]["built"] or libraries(tree).count("_cuda.so") == 1


@packaging
def test_second_install_in_place_compiles_nothing(environment: Environment, tree: Path) -> None:
    objects = sorted((tree / "build").rglob("*.o"))
    before = {path: path.stat().st_mtime_ns for path in objects}
    assert len(before) > 5
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1")
    assert {path: path.stat().st_mtime_ns for path in objects} == before
    assert environment.exercise()["native"]["loaded"]


@packaging
def test_offline_rebuild_without_isolation(environment: Environment, tree: Path) -> None:
    for name in ("setuptools", "pybind11", "cmake", "ninja"):
        pytest.importorskip(name, reason=f"{name} is not installed (the extra `dev` has it)")
    source = tree / "csrc" / "bindings.cpp"
    source.write_text(source.read_text() + "\n// touched\n")
    before = next((tree / "mlpkern").glob("_C*.so")).stat().st_mtime_ns
    environment.install(
        *("--no-build-isolation", "-e", str(tree)),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS="",
        PATH="/usr/bin:/bin",
        MLPKERN_REQUIRE_NATIVE="1",
    )
    assert next((tree / "mlpkern").glob("_C*.so")).stat().st_mtime_ns > before
    assert environment.exercise()["native"]["loaded"]


@packaging
def test_a_broken_kernel_removes_the_stale_library(environment: Environment, tree: Path) -> None:
    assert libraries(tree)
    kernel = tree / "csrc" / "cpu" / "linear_tanh.cpp"
    text = kernel.read_text()
    kernel.write_text(text + "\n#error deliberately broken\n")
    try:
        environment.install("-e", str(tree))
    finally:
        kernel.write_text(text)
    assert libraries(tree) == []
    record = read_record(tree)
    assert record["native"] is False
    assert "csrc/cpu/linear_tanh.cpp" in record["reason"]
    assert "deliberately broken" in record["reason"]
    assert any("deliberately broken" in line for line in record["output"])
    facts = environment.exercise()
    assert facts["explain"].startswith("linear_tanh runs on reference")
    assert "deliberately broken" in facts["report"]


@packaging
def test_a_mended_kernel_builds_again(environment: Environment, tree: Path) -> None:
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1")
    assert environment.exercise()["native"]["loaded"]
    assert read_record(tree)["reason"] == ""


# --- CUDA: a toolkit that is missing or fails costs _cuda.so alone -------------------------------
def fake_nvcc(folder: Path) -> Path:
    """An nvcc that is there and compiles nothing."""
    path = folder / "nvcc"
    path.write_text(
        "#!/bin/sh\n"
        "case $1 in\n"
        "  --version) echo 'Cuda compilation tools, release 13.0, V13.0.1' ;;\n"
        "  --list-gpu-arch) printf 'compute_%s\\n' 80 86 89 90 100 120 ;;\n"
        "  *) echo 'nvcc fatal   : deliberately broken' ; exit 1 ;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def tiny_cuda(tree: Path, tmp_path: Path) -> Iterator[Path]:
    """The only CUDA source of the tree, for as long as the test lasts."""
    nvcc = shutil.which("nvcc")
    if not nvcc:
        pytest.skip("nvcc is not installed")
    folder = tree / "csrc" / "cuda"
    real = sorted(folder.glob("*.cu"))
    for path in real:
        path.rename(tmp_path / path.name)
    tiny = folder / "tiny.cu"
    tiny.write_text(TINY_CUDA)
    yield tiny
    tiny.unlink()
    for path in real:
        (tmp_path / path.name).rename(path)


@packaging
def test_no_nvcc_is_told(environment: Environment, tree: Path) -> None:
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1")
    reason = "CUDACXX names /nowhere/nvcc, which was not found"
    facts = environment.exercise()
    assert facts["native"]["loaded"]
    assert facts["build"]["cuda"]["reason"] == reason
    assert reason in facts["backends"]["cuda"]["reason"]
    assert f"no CUDA: {reason}" in facts["report"]


@packaging
def test_an_nvcc_that_fails_costs_cuda_alone(
    environment: Environment, tree: Path, tmp_path: Path
) -> None:
    nvcc = str(fake_nvcc(tmp_path))
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1", CUDACXX=nvcc)
    facts = environment.exercise()
    assert facts["native"]["loaded"]
    assert facts["build"]["cuda"]["built"] is False
    assert facts["build"]["cuda"]["reason"] == "nvcc failed: nvcc fatal   : deliberately broken"
    assert "deliberately broken" in facts["backends"]["cuda"]["reason"]
    assert "deliberately broken" in facts["report"]
    assert libraries(tree) != []
    assert "_cuda.so" not in libraries(tree)


@packaging
def test_cuda_can_be_required(environment: Environment, tree: Path, tmp_path: Path) -> None:
    nvcc = str(fake_nvcc(tmp_path))
    required = {"MLPKERN_REQUIRE_CUDA": "1"}
    output = environment.install("-e", str(tree), check=False, CUDACXX=nvcc, **required)
    assert "MLPKERN_REQUIRE_CUDA is set, and nvcc failed" in output
    output = environment.install("-e", str(tree), check=False, **required)
    assert "MLPKERN_REQUIRE_CUDA is set, and CUDACXX names /nowhere/nvcc" in output


@packaging
def test_a_wheel_holds_the_cuda_library(
    environment: Environment, tree: Path, tiny_cuda: Path, tmp_path: Path
) -> None:
    environment.run(
        *("-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(tree)),
        CUDACXX="nvcc",
        MLPKERN_REQUIRE_CUDA="1",
        MLPKERN_CUDA_ARCHITECTURES="80-real,90",
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        assert "mlpkern/_cuda.so" in archive.namelist()
        cuda = json.loads(archive.read("mlpkern/_build_info.json"))["cuda"]
    assert cuda["built"]
    assert cuda["targets"] == "sm_80 sm_90 compute_90"


@packaging
def test_a_broken_cuda_kernel_removes_the_stale_library(
    environment: Environment, tree: Path, tiny_cuda: Path
) -> None:
    one = {"CUDACXX": "nvcc", "MLPKERN_CUDA_ARCHITECTURES": "90-real"}
    environment.install("-e", str(tree), MLPKERN_REQUIRE_CUDA="1", **one)
    assert "_cuda.so" in libraries(tree)
    assert "with CUDA for sm_90" in environment.run("-m", "mlpkern", "info")
    tiny_cuda.write_text(TINY_CUDA + "\n#error deliberately broken\n")
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1", **one)
    assert "_cuda.so" not in libraries(tree)
    reason = read_record(tree)["cuda"]["reason"]
    assert reason.startswith("nvcc failed: csrc/cuda/tiny.cu")
    assert "deliberately broken" in reason
    facts = environment.exercise()
    assert facts["native"]["loaded"]
    assert "deliberately broken" in facts["report"]


# --- Wheels and sdists ---------------------------------------------------------------------------
@packaging
def test_wheel_holds_the_package_and_nothing_stale(tree: Path, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert [name for name in names if name.endswith(".so") and "_C" in name] == [
        f"mlpkern/_C{suffix}"
    ]
    for path in sorted((tree / "mlpkern").rglob("*.py")):
        assert path.relative_to(tree).as_posix() in names
    for name in ("py.typed", "_build_info.json", "_C.pyi", "lm/data/names.txt"):
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
    assert facts["versions"]["mlpkern"] == "0.1.0"
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
    # The kernels were compiled elsewhere: here one instruction set shows that nothing is missing.
    environment.install(
        str(source), MLPKERN_REQUIRE_NATIVE="1", MLPKERN_CMAKE_ARGS="-DMLPKERN_ISAS=baseline"
    )
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
            **NO_NVCC,
            "MLPKERN_REQUIRE_NATIVE": "1",
            "MLPKERN_REQUIRE_CUDA": "",
            "MLPKERN_CMAKE_ARGS": "-DMLPKERN_ISAS=baseline",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tag = "cpython-" + version.replace(".", "")
    assert [name for name in names if name.startswith(f"mlpkern/_C.{tag}")]


def find_python(version: str) -> str:
    """An interpreter of this version, or skips the test."""
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
