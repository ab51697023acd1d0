"""Fixtures for all tests: the backends, their devices, and a seed for each test."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

# Test processes share the cores, so each has one thread. torch reads this at its import, and so do
# the programs that tests start; tests of threads set their own number.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from support.installing import environment, tree  # noqa: F401
from support.lm.words import make_words
from support.small_disk import disk  # noqa: F401

import mlpkern
from mlpkern.registry import has_op, installed

# Without a GPU the Triton kernels run in Triton's interpreter, which reads this at its import.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_report_header() -> list[str]:
    """The backends that these tests run on, and why the others cannot run."""
    lines = [f"torch {torch.__version__}, {torch.get_num_threads()} threads"]
    for name, backend in mlpkern.backends().items():
        state = backend.detail if backend.available else f"not available: {backend.reason}"
        lines.append(f"mlpkern backend {name}: {state}")
    return lines


def op_of(request: pytest.FixtureRequest) -> str | None:
    """The op in the name of the test's file or in the name of the test."""
    names = (request.path.stem, request.node.originalname)
    found = [
        op for op in mlpkern.functional.__all__ if any(n.startswith(f"test_{op}") for n in names)
    ]
    return max(found, key=len, default=None)  # the longest: ops begin with the names of others


@pytest.fixture(params=installed())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a backend; every op of the test runs on it."""
    status = mlpkern.backends()[request.param]
    if not status.available:
        pytest.skip(f"backend {request.param}: {status.reason}")
    op = op_of(request)
    if op and not has_op(request.param, op):
        pytest.skip(f"backend {request.param} has no {op}")
    with mlpkern.use_backend(request.param):
        yield request.param


@pytest.fixture
def device(backend: str) -> str:
    """The device type whose tensors the backend takes."""
    on_gpu = backend == "cuda" or (backend == "triton" and torch.cuda.is_available())
    return "cuda" if on_gpu else "cpu"


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    """Random inputs that differ from test to test and are the same in every run of one test.

    The folder does not count, so that a test keeps its inputs when its file moves.
    """
    test = f"tests/{request.path.name}::{request.node.name}"
    torch.manual_seed(zlib.crc32(test.encode()))


@pytest.fixture
def words(tmp_path: Path) -> str:
    """The path of a text file with 300 random words over the letters a to h."""
    path = tmp_path / "words.txt"
    path.write_text("\n".join(make_words()) + "\n")
    return str(path)


@pytest.fixture
def in_a_terminal() -> Iterator[None]:
    """SIGINT and SIGHUP act as in a terminal.

    Under ``nohup`` and in the background of a script they are ignored otherwise.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One torch thread: the operations of the test are too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
