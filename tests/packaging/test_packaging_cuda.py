"""Installing where the CUDA toolkit is missing or fails: only _cuda.so is left out."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installing import Environment, libraries, packaging, read_record

TINY_CUDA = """
__global__ void tiny_kernel(float* x) { x[threadIdx.x] = 1; }
extern "C" const void* mlpkern_cuda_library() { return nullptr; }
const void* tiny = (const void*)tiny_kernel;
"""


def fake_nvcc(folder: Path) -> Path:
    """An nvcc that reports its version but fails to compile."""
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
    """The only CUDA source of the tree during the test."""
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
    asked = {"CUDACXX": nvcc, "MLPKERN_CUDA_ARCHITECTURES": "90-real"}
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1", **asked)
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
    required = {"MLPKERN_REQUIRE_CUDA": "1", "MLPKERN_CUDA_ARCHITECTURES": "90-real"}
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


@packaging
def test_a_library_that_was_built_elsewhere_is_taken_without_nvcc(
    environment: Environment, tree: Path, tiny_cuda: Path, tmp_path: Path
) -> None:
    elsewhere = {"CUDACXX": "nvcc", "MLPKERN_CUDA_ARCHITECTURES": "90-real"}
    command = ("-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(tree))
    environment.run(*command, MLPKERN_REQUIRE_CUDA="1", **elsewhere)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        archive.extractall(tmp_path)
    given = {"MLPKERN_CUDA_LIBRARY": str(tmp_path / "mlpkern" / "_cuda.so")}
    environment.install("-e", str(tree), MLPKERN_REQUIRE_CUDA="1", **given)
    cuda = read_record(tree)["cuda"]
    assert (cuda["targets"], cuda["note"][:15]) == ("sm_90", "built elsewhere")
    assert (tree / "mlpkern" / "_cuda.so").read_bytes() == Path(*given.values()).read_bytes()
    tiny_cuda.write_text(TINY_CUDA + "\n")
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1", **given)
    assert "built from other sources" in read_record(tree)["cuda"]["reason"]
    assert "_cuda.so" not in libraries(tree)
