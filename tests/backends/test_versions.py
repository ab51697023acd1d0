"""Versions of torch, Triton and NumPy: the oldest ones, and reasons for what is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command_line import fails

import mlpkern
from mlpkern.ops.autocast import WITHOUT_AUTOCAST
from mlpkern.triton_kernels import backend

ROOT = Path(__file__).resolve().parents[2]


def numbers(version: str, count: int = 2) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:count])


def test_the_oldest_versions_are_the_bounds():
    """`make test-oldest` installs the oldest versions that the package supports."""
    pins = dict(
        re.findall(r"^(\w+)==(\S+)", (ROOT / ".ci" / "constraints-oldest.txt").read_text(), re.M)
    )
    bounds = re.findall(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert [numbers(bound) for bound in bounds] == [numbers(pins["torch"])]
    assert numbers(pins["triton"]) == backend.OLDEST
    page = (ROOT / "docs" / "development" / "versions.md").read_text()
    for name in ("torch", "triton", "numpy"):
        assert ".".join(map(str, numbers(pins[name]))) in page, name


@pytest.mark.filterwarnings("ignore:.mkldnn. is no longer used:UserWarning")
def test_torch_has_autocast_for_every_other_device_type():
    with pytest.raises(RuntimeError, match="Expected one of") as error:
        torch.device("none")
    types = re.search(r"one of (.*) device type", str(error.value))[1].split(", ")
    absent = {name for name in types if not torch.amp.is_autocast_available(name)}
    assert absent == WITHOUT_AUTOCAST & set(types)
    assert "meta" in absent


# Triton's interpreter


@pytest.fixture
def afresh(monkeypatch):
    """The status of the backend is determined anew in the test, and again after it."""
    monkeypatch.setattr(sys.modules["mlpkern.registry"], "_status", {})
    backend.status.cache_clear()
    yield
    backend.status.cache_clear()


@pytest.fixture
def triton():
    """Triton, in its interpreter and new enough for the backend."""
    found = pytest.importorskip("triton")
    if not backend._interpreting(found) or numbers(found.__version__) < (3, 6):
        pytest.skip("Triton's interpreter is not in force")
    return found


def test_the_interpreter_runs_with_every_numpy_that_it_knows(triton, afresh):
    """Otherwise the tests of the Triton kernels would be skipped without a known reason."""
    known = numbers(triton.__version__) < (3, 7) and numbers(np.__version__) >= (2, 4)
    available, reason, hint = backend.status()
    assert available is not known, reason
    if known:
        assert f"Triton {triton.__version__} fails with NumPy {np.__version__}: " in reason
        assert "numpy<2.4" in hint


def test_a_broken_interpreter_is_a_reason(triton, afresh, monkeypatch):
    from mlpkern.triton_kernels.device import interpreter

    def refuse(n):
        raise TypeError("only 0-dimensional arrays can be converted to Python scalars")

    monkeypatch.setattr(interpreter, "loop", {(1,): refuse})
    available, reason, hint = backend.status()
    assert not available
    assert reason.endswith(": only 0-dimensional arrays can be converted to Python scalars")
    with pytest.raises(RuntimeError, match=re.escape(hint)):
        mlpkern.use_backend("triton").__enter__()


# A build of torch for CUDA on a machine without a driver


@pytest.mark.skipif(
    torch.version.cuda is None or torch.cuda.is_available(),
    reason="needs a CUDA build of torch and a machine without a GPU",
)
def test_a_cuda_build_of_torch_without_a_driver(tmp_path, capsys):
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "error", "-m", "mlpkern", "info"]
    text = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    assert re.search(r"  triton +missing: torch finds no NVIDIA GPU\n", text)
    assert re.search(r"  cuda +missing: \S+", text)
    assert "--device cuda" in fails(capsys, "train", "--device", "cuda", "--out", tmp_path / "run")
    x, w = torch.randn(2, 3), torch.randn(4, 3)
    assert mlpkern.explain("linear_tanh", x, w).startswith("linear_tanh runs on ")
