"""The compiled library: its symbols, what it links, the choice of instruction set, its report."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.backends import run_python

import mlpkern
from mlpkern import build_record, info

ROOT = Path(__file__).resolve().parents[2]

_C = pytest.importorskip(
    "mlpkern._C", reason=mlpkern.backends()["cpu"].reason, exc_type=ImportError
)
LIBRARY = Path(_C.__file__)


def tool(name: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def isa_objects(isa: str) -> list[Path]:
    """The object files of one instruction set in the build folders of this tree."""
    return sorted((ROOT / "build").glob(f"*/CMakeFiles/mlpkern_{isa}.dir/csrc/cpu/*.o"))


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "neon"])
def test_objects_of_an_instruction_set_have_no_weak_symbols(isa: str) -> None:
    # The linker keeps one copy of a weak symbol. If it kept that of AVX-512, every CPU would run
    # it.
    if isa not in build_record.read()["isas"]:
        pytest.skip(f"{isa} is not built on {platform.machine()}; MLPKERN_ISAS=all builds all")
    objects = isa_objects(isa)
    if not objects:
        pytest.skip("no build folder beside the tests: installed from a wheel")
    listing = subprocess.run(
        [tool("nm"), "-C", *map(str, objects)], capture_output=True, text=True, check=True
    ).stdout
    weak = [line for line in listing.splitlines() if re.match(r"[0-9a-f]* *[WwuVv] ", line)]
    assert not weak, f"weak symbols in {isa}: {weak[:5]}"
    # The listing is that of kernels: each op defines its launcher in the namespace of the set.
    for op in ("embedding_gather", "linear_tanh", "embedding_linear_tanh", "cross_entropy"):
        assert f"mlpkern::cpu::{isa}::{op}_forward(" in listing


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_library_links_neither_torch_nor_openmp() -> None:
    dynamic = subprocess.run(
        [tool("readelf"), "-d", str(LIBRARY)], capture_output=True, text=True, check=True
    ).stdout
    needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "NEEDED" in line]
    assert any(name.startswith("libc.") for name in needed)
    assert not [name for name in needed if "torch" in name or "omp" in name or "python" in name]


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_library_exports_only_its_init_function() -> None:
    exported = subprocess.run(
        [tool("nm"), "-D", "--defined-only", str(LIBRARY)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[2::3]
    assert [name for name in exported if "mlpkern" in name] == []
    assert "PyInit__C" in exported


def test_isa_is_the_best_one_or_the_one_named() -> None:
    available = _C.isas_available().split(",")
    assert set(available) <= set(build_record.read()["isas"])
    assert _C.isa() == (os.environ.get("MLPKERN_ISA") or available[0])


RESULTS = """
import torch, mlpkern
from mlpkern import _C
generator = torch.Generator().manual_seed(1)
draw = lambda *shape: torch.randn(*shape, generator=generator)
ids = torch.randint(27, (37, 3), generator=generator)
e = draw(27, 10).requires_grad_()
w = draw(33, 30).requires_grad_()
b = draw(33).requires_grad_()
with mlpkern.use_backend("cpu"):
    h = mlpkern.linear_tanh(mlpkern.embedding_gather(ids, e), w, b)
    loss = mlpkern.cross_entropy(h[:, :27], ids[:, 0])
    loss.backward()
print(_C.isa())
for t in (loss.reshape(1), h, e.grad, w.grad, b.grad):
    print(t.detach().double().flatten().tolist())
"""


def results_on(isa: str) -> list[torch.Tensor]:
    done = run_python("-c", RESULTS, MLPKERN_ISA=isa)
    assert done.returncode == 0, done.stderr
    name, *arrays = done.stdout.splitlines()
    assert name == isa
    return [torch.tensor(json.loads(array), dtype=torch.float64) for array in arrays]


def test_every_instruction_set_gives_the_same_numbers_to_rounding() -> None:
    *others, plainest = _C.isas_available().split(",")
    expected = results_on(plainest)
    assert all(array.abs().max() > 0 for array in expected)
    for isa in others:
        for got, want in zip(results_on(isa), expected, strict=True):
            # A few dozen float32 additions in another order.
            torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-6)


def test_unknown_instruction_set_is_refused_with_the_choices() -> None:
    code = "import mlpkern; print(mlpkern.backends()['cpu'].reason)"
    done = run_python("-c", code, MLPKERN_ISA="sse9")
    assert done.returncode == 0, done.stderr
    assert "MLPKERN_ISA" in done.stdout
    assert _C.isas_available() in done.stdout

    code = "import mlpkern, torch\nwith mlpkern.use_backend('cpu'): pass"
    done = run_python("-c", code, MLPKERN_ISA="sse9")
    assert done.returncode == 1
    assert "RuntimeError: use_backend: backend cpu cannot run here" in done.stderr
    assert "MLPKERN_ISA" in done.stderr


def test_report_names_backends_instruction_set_threads_and_versions() -> None:
    text = info.report()
    facts = info.collect()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["native"]["isa"] == _C.isa()
    assert facts["native"]["thread_pool"] == "torch"
    assert facts["build"]["native"] is True
    for name, backend in mlpkern.backends().items():
        assert name in text
        assert (backend.detail if backend.available else backend.reason) in text
    assert f"{_C.isa()} (can run: " in text


def test_report_counts_the_threads_of_torch() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert info.collect()["native"]["threads"] == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_a_limit_of_one_starts_no_threads() -> None:
    code = """
import os, torch, mlpkern
from mlpkern import _C
torch.set_num_threads(1)  # until the tensors are filled
x, w = torch.ones(16384, 64), torch.ones(64, 64)
torch.set_num_threads(4)
counts = [len(os.listdir("/proc/self/task"))]
for limit in (1, 0):
    _C.limit_threads(limit)
    mlpkern.linear_tanh(x, w)
    counts.append(len(os.listdir("/proc/self/task")))
print(*(count - counts[0] for count in counts[1:]))
"""
    done = run_python("-c", code)
    limited, unlimited = map(int, done.stdout.split())
    assert limited == 0, done.stderr
    assert unlimited >= 3, done.stderr


def test_report_shows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPKERN_EXAMPLE", "42")
    assert info.collect()["environment"]["MLPKERN_EXAMPLE"] == "42"
    assert ["MLPKERN_EXAMPLE", "42"] in [line.split() for line in info.report().splitlines()]


def test_report_notices_sources_newer_than_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, source = tmp_path / "mlpkern", tmp_path / "csrc" / "kernels.h"
    package.mkdir()
    source.parent.mkdir()
    (tmp_path / "CMakeLists.txt").touch()
    source.touch()
    (package / "_build_info.json").write_text("{}")
    monkeypatch.setattr(info, "PACKAGE", package)
    os.utime(package / "_build_info.json", (2e9, 2e9))
    assert info.collect()["native"]["stale"] == ""
    os.utime(source, (2e9 + 1, 2e9 + 1))
    assert info.collect()["native"]["stale"] == "csrc/kernels.h"
    assert "csrc/kernels.h changed since" in info.report()
