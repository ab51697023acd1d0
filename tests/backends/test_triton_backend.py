"""The backend ``triton``: reasons for its absence, its choice, float64, ids out of range."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import mlpkern
from mlpkern import reference, registry
from mlpkern.triton_kernels import backend

INTERPRETED = pytest.mark.skipif(
    torch.cuda.is_available() or not mlpkern.backends()["triton"].available,
    reason="with a GPU nothing is interpreted, and without Triton nothing runs",
)


@pytest.fixture
def afresh(fresh):
    """Registry and backend as at the start of a process."""
    backend.status.cache_clear()
    yield
    backend.status.cache_clear()


@pytest.fixture
def compiled(afresh, monkeypatch):
    """Triton as if TRITON_INTERPRET were not set."""
    pytest.importorskip("triton")
    monkeypatch.setattr(backend, "_interpreting", lambda triton: False)


@pytest.fixture
def card(compiled, monkeypatch):
    """A machine with one GPU of compute capability 9.0 and a C compiler."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (9, 0))
    monkeypatch.setenv("CC", "cc")


# Why it cannot run


def test_without_triton_the_package_works_and_a_named_call_says_why():
    code = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch, mlpkern, mlpkern.triton_kernels.backend
x, w = torch.ones(2, 3), torch.ones(4, 3)
assert mlpkern.linear_tanh(x, w).shape == (2, 4)
assert mlpkern.triton_kernels.backend.check_errors() is None
try:
    with mlpkern.use_backend("triton"):
        mlpkern.linear_tanh(x, w)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "use_backend: backend triton cannot run here: triton is not installed. "
        "`pip install triton` (Linux), version 3.6 or newer."
    )


@pytest.mark.parametrize(
    ("version", "available"),
    [("3.5.1", False), ("2.9", False), ("3.6.0", True), ("3.10.0", True), ("3.7.0+git1", True)],
)
def test_versions(card, monkeypatch, version, available):
    monkeypatch.setattr(sys.modules["triton"], "__version__", version)
    found, reason, detail = backend.status()
    assert found is available
    if available:
        assert version in detail
        return
    assert reason == f"Triton {version} is older than 3.6"
    with pytest.raises(RuntimeError, match=f"cannot run here: {reason}. `pip install triton`"):
        mlpkern.use_backend("triton").__enter__()


def test_a_broken_installation(afresh, monkeypatch):
    pytest.importorskip("triton")

    def broken(name):
        raise OSError("libtriton.so: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    available, reason, _ = backend.status()
    assert not available
    assert (
        reason == "triton does not import (OSError: libtriton.so: cannot open shared object file)"
    )


def test_no_gpu(card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    available, reason, detail = backend.status()
    assert not available
    assert reason == "torch finds no NVIDIA GPU"
    assert "TRITON_INTERPRET=1" in detail


def test_torch_without_cuda(card, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert backend.status()[1] == f"torch {torch.__version__} is built without CUDA"


def test_a_card_that_triton_does_not_serve(card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (7, 5))
    assert backend.status()[1] == "the NVIDIA GPU is sm_75, Triton serves sm_80 and newer"


def test_no_compiler(card, monkeypatch):
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    available, reason, detail = backend.status()
    assert not available
    assert "needs a C compiler" in reason
    assert "gcc" in detail


# The choice


with FakeTensorMode():  # made before the fixture `card`, whose GPU torch would initialize
    ON_A_CARD = {d: torch.empty(2, 3, device="cuda", dtype=d) for d in (None, torch.float64)}


def explained(op="linear_tanh", dtype=None):
    """What `explain` says about a tensor on a GPU; no GPU is needed."""
    return mlpkern.explain(op, ON_A_CARD[dtype])


def test_without_the_native_library_gpu_tensors_go_to_triton(card, monkeypatch):
    reason = "card 0 (sm_86) is not among the targets of this build"
    monkeypatch.setitem(registry._status, "cuda", registry.Backend(False, reason, ""))
    text = explained()
    assert text.startswith("linear_tanh runs on triton: the tensors are on cuda; passed over: ")
    assert f"cuda ({reason})" in text
    assert "runs on reference" in explained("embedding_linear_tanh")


def test_without_both_gpu_tensors_go_to_the_reference(compiled, monkeypatch):
    for name in ("cuda", "triton"):
        status = registry.Backend(False, f"no {name}", "")
        monkeypatch.setitem(registry._status, name, status)
    assert (
        "runs on reference: the tensors are on cuda; passed over: cuda (no cuda); triton (no "
        "triton)" in explained()
    )


def test_the_native_library_comes_first(card, monkeypatch):
    monkeypatch.setitem(registry._status, "cuda", registry.Backend(True, "", ""))
    assert "runs on cuda" in explained()


def test_float64_runs_on_the_reference_and_explain_says_so(card, monkeypatch):
    monkeypatch.setitem(registry._status, "cuda", registry.Backend(False, "none", ""))
    why = "in plain torch (reference), since the Triton kernels do not compute in float64"
    assert why in explained(dtype=torch.float64)
    assert "plain torch" not in explained()


def test_cpu_tensors_need_the_interpreter(card):
    message = "use_backend: backend triton runs on cuda tensors, linear_tanh got cpu tensors"
    with mlpkern.use_backend("triton"), pytest.raises(RuntimeError, match=message):
        mlpkern.linear_tanh(torch.ones(2, 3), torch.ones(4, 3))


@INTERPRETED
def test_the_interpreter_serves_cpu_tensors_only_by_name(afresh):
    x, w = torch.randn(2, 3), torch.randn(4, 3)
    assert "interpreter" in mlpkern.backends()["triton"].detail
    assert "triton" not in mlpkern.explain("linear_tanh", x, w)
    with mlpkern.use_backend("triton"):
        assert (
            mlpkern.explain("linear_tanh", x, w) == "linear_tanh runs on triton: named by "
            "use_backend."
        )
        torch.testing.assert_close(mlpkern.linear_tanh(x, w), torch.tanh(x @ w.t()))


@INTERPRETED
@pytest.mark.parametrize("op", ["cross_entropy", "embedding_gather", "linear_tanh"])
def test_float64_gives_the_bits_of_the_reference(op):
    x, ids = torch.randn(5, 3, dtype=torch.float64), torch.randint(0, 3, (5,))
    arguments = {
        "cross_entropy": (x, ids, None, -100, 1, 0.1),
        "embedding_gather": (ids[:, None], x),
        "linear_tanh": (x, x, None),
    }[op]
    name = f"{op}_forward"
    ours, expected = (getattr(m, name)(*arguments) for m in (backend, reference))
    for a, b in zip(ours, expected, strict=True):
        assert torch.equal(a, b)


# Ids out of range


@pytest.fixture
def kernels(monkeypatch):
    """The kernels on the device that has them: a GPU, or the CPU of the interpreter."""
    status = mlpkern.backends()["triton"]
    if not status.available:
        pytest.skip(status.reason)
    with mlpkern.use_backend("triton"):
        yield "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("classes", [27, 4100])
def test_of_many_bad_targets_the_first_is_named(kernels, classes):
    logits = torch.randn(9, classes, device=kernels, requires_grad=True)
    target = torch.randint(0, classes, (9,), device=kernels)
    target[[4, 7]] = torch.tensor([classes + 1, -5], device=kernels)
    losses = mlpkern.cross_entropy(logits, target, reduction="none")
    (gradient,) = torch.autograd.grad(losses.nan_to_num().sum(), logits)
    assert losses.isnan().nonzero().flatten().tolist() == [4, 7]
    assert gradient.isnan().any(1).nonzero().flatten().tolist() == [4, 7]
    with pytest.raises(IndexError, match=rf"target\[4\] is {classes + 1}, expected 0 <= target <"):
        mlpkern.check_errors()
    assert mlpkern.check_errors() is None
    kept = [0, 1, 2, 3, 5, 6, 8]
    again = mlpkern.cross_entropy(logits[kept], target[kept], reduction="none")
    assert torch.equal(again, losses[kept])


def test_a_bad_id_of_another_op_waits_for_the_next_call(kernels):
    table = torch.randn(5, 2, device=kernels)
    ids = torch.tensor([[[0, 1], [2, 9]]], device=kernels)
    rows = mlpkern.embedding_gather(ids, table)
    assert rows.isnan().nonzero().tolist() == [[0, 1, 2], [0, 1, 3]]
    mlpkern.cross_entropy(torch.randn(2, 5, device=kernels), torch.tensor([0, 7], device=kernels))
    with pytest.raises(IndexError, match=r"^embedding_gather: input\[0, 1, 1\] is 9, expected 0 "):
        mlpkern.check_errors()
    with pytest.raises(IndexError, match=r"^cross_entropy: target\[1\] is 7, expected 0 <= target"):
        mlpkern.check_errors()
    assert mlpkern.check_errors() is None


def test_more_kinds_of_calls_than_there_are_words(kernels, monkeypatch):
    """Further kinds share records, which do not hold the shape of the ids."""
    bad_id = importlib.import_module("mlpkern.triton_kernels.device.bad_id")
    monkeypatch.setattr(bad_id, "_records", {})
    monkeypatch.setattr(bad_id, "SITES", 6)
    monkeypatch.setattr(bad_id, "SHARED_SITES", 4)
    table = torch.randn(5, 2, device=kernels)
    sites = set()
    for rows in range(1, 6):
        ids = torch.zeros(rows, 3, dtype=torch.int64, device=kernels)
        ids[-1, 2] = 5
        mlpkern.embedding_gather(ids, table)
        where = f"{rows - 1}, 2" if rows <= 2 else f"{rows * 3 - 1}"
        with pytest.raises(IndexError, match=rf"^embedding_gather: input\[{where}\] is 5"):
            mlpkern.check_errors()
        sites.add(bad_id.site_of("embedding_gather", ids, 5).data_ptr())
    assert len(sites) == 3
