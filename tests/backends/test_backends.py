"""The choice of a backend: automatic, named, refused, explained."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import types

import pytest
import torch
from support.backends import needs_native, run_python

import mlpkern
from mlpkern import registry
from mlpkern.registry import select

X, W, B = torch.randn(6, 5), torch.randn(4, 5), torch.randn(4)


def test_the_four_backends_in_the_order_of_the_choice():
    found = mlpkern.backends()
    assert list(found) == ["cpu", "cuda", "triton", "reference"]
    assert found["reference"].available
    for backend in found.values():
        assert bool(backend.reason) != backend.available


def test_cpu_tensors_go_to_cpu_or_else_to_the_reference(fresh):
    expected = "mlpkern.cpu" if mlpkern.backends()["cpu"].available else "mlpkern.reference.backend"
    assert select("linear_tanh", X).__name__ == expected


def test_use_backend_runs_the_named_one_and_only_inside(fresh, monkeypatch):
    outside = select("linear_tanh", X)
    calls = []
    original = registry.load("reference").linear_tanh_forward
    monkeypatch.setattr(
        registry.load("reference"),
        "linear_tanh_forward",
        lambda *args: calls.append(args) or original(*args),
    )
    with mlpkern.use_backend("reference"):
        mlpkern.linear_tanh(X, W, B)
        if mlpkern.backends()["cpu"].available:
            with mlpkern.use_backend("cpu"):
                mlpkern.linear_tanh(X, W, B)
        assert len(calls) == 1
        mlpkern.linear_tanh(X, W, B)
    assert len(calls) == 2
    assert select("linear_tanh", X) is outside


def test_use_backend_ends_with_an_exception(fresh):
    before = select("linear_tanh", X)
    with pytest.raises(KeyError), mlpkern.use_backend("reference"):
        raise KeyError
    assert select("linear_tanh", X) is before


def test_use_backend_holds_for_its_own_thread(fresh):
    seen = []
    with mlpkern.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(select("linear_tanh", X)))
        thread.start()
        thread.join()
    assert seen == [select("linear_tanh", X)]


@needs_native
def test_a_backward_runs_where_its_forward_ran(fresh, monkeypatch):
    w = W.clone().requires_grad_()
    with mlpkern.use_backend("reference"):
        y = mlpkern.linear_tanh(X, w, B)
    monkeypatch.setattr(registry.load("cpu"), "linear_tanh_backward", None)
    y.sum().backward()
    assert w.grad is not None


def test_an_unknown_backend(fresh):
    with (
        pytest.raises(ValueError, match=r"^use_backend: backend must be one of .* 'gpu'"),
        mlpkern.use_backend("gpu"),
    ):
        pass


@pytest.mark.parametrize("name", ["cpu", "cuda", "triton"])
def test_a_backend_that_cannot_run_raises_and_says_why(fresh, monkeypatch, name):
    unavailable = registry.Backend(False, "no such hardware", "Buy one.")
    monkeypatch.setitem(registry._status, name, unavailable)
    message = f"^use_backend: backend {name} cannot run here: no such hardware. Buy one.$"
    with pytest.raises(RuntimeError, match=message), mlpkern.use_backend(name):
        pass


def test_absent_backends_give_their_reason(fresh, monkeypatch):
    entry = registry._Entry("mlpkern.no_such_module", ("cpu",))
    monkeypatch.setitem(registry._REGISTRY, "extra", entry)
    assert (
        mlpkern.backends()["extra"].reason
        == "mlpkern.no_such_module is not part of this installation"
    )
    assert "extra" not in registry.installed()


def test_a_backend_is_added_by_a_module_and_one_line(fresh, monkeypatch):
    module = types.ModuleType("mlpkern_extra")
    module.status = lambda: (True, "", "test")
    module.CHECKS_ARGUMENTS = False
    module.linear_tanh_forward = lambda input, weight, bias: torch.full((1,), 7.0)
    monkeypatch.setitem(sys.modules, "mlpkern_extra", module)
    module.__spec__ = types.SimpleNamespace()  # what find_spec looks for
    monkeypatch.setitem(registry._REGISTRY, "extra", registry._Entry("mlpkern_extra", ("cpu",)))
    with mlpkern.use_backend("extra"):
        assert mlpkern.linear_tanh(X, W, B).item() == 7.0
        with pytest.raises(RuntimeError, match="backend extra has no cross_entropy"):
            mlpkern.cross_entropy(X, torch.zeros(6, dtype=torch.int64))


def test_a_backend_for_another_device_raises(fresh, monkeypatch):
    module = types.ModuleType("mlpkern_gpu")
    module.status = lambda: (True, "", "test")
    module.CHECKS_ARGUMENTS = False
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "mlpkern_gpu", module)
    monkeypatch.setitem(registry._REGISTRY, "gpu", registry._Entry("mlpkern_gpu", ("cuda",)))
    message = "use_backend: backend gpu runs on cuda tensors, linear_tanh got cpu tensors"
    with mlpkern.use_backend("gpu"), pytest.raises(RuntimeError, match=message):
        mlpkern.linear_tanh(X, W, B)


# The environment variable

CALL = "import torch, mlpkern; print(mlpkern.explain('linear_tanh', torch.ones(1, 2)))"


def test_environment_variable():
    assert (
        "reference: named by MLPKERN_BACKEND"
        in run_python("-c", CALL, MLPKERN_BACKEND="reference").stdout
    )
    assert "MLPKERN_BACKEND" not in run_python("-c", CALL, MLPKERN_BACKEND="").stdout


def test_environment_variable_that_names_nothing():
    assert run_python("-c", "import mlpkern", MLPKERN_BACKEND="fast").returncode == 0
    error = run_python("-c", CALL, MLPKERN_BACKEND="fast").stderr
    assert "ValueError: MLPKERN_BACKEND: backend must be one of cpu, " in error


# explain


def test_explain_names_the_backend_and_the_reason(fresh, backend, device):
    x = X.to(device)
    text = mlpkern.explain("linear_tanh", x, W.to(device), B.to(device))
    assert text == f"linear_tanh runs on {backend}: named by use_backend."


def test_explain_lists_what_was_passed_over(fresh, monkeypatch):
    monkeypatch.setitem(registry._status, "cpu", registry.Backend(False, "no compiler", ""))
    text = mlpkern.explain("cross_entropy", X)
    assert "runs on reference: the tensors are on cpu; passed over: cpu (no compiler)" in text


def test_explain_tells_of_the_exceptions():
    target = torch.zeros(6, dtype=torch.int64)
    seen = []
    torch.func.grad(lambda x: seen.append(mlpkern.explain("linear_tanh", x, W)) or x.sum())(X)
    assert "plain torch (reference): a transform of torch.func" in seen[0]
    weight = torch.rand(5, requires_grad=True)
    text = mlpkern.explain("cross_entropy", X, target, weight)
    assert "the class weights require a gradient" in text
    assert "through torch.library" in mlpkern.explain("linear_tanh", X.to("meta"))


@pytest.mark.parametrize(
    ("threads", "hidden", "rows", "models", "words"),
    [
        (1, 512, 4096, 1, "on one thread, as torch.set_num_threads says"),
        (2, 8192, 65536, 1, "2 threads share every step"),  # even while others use the cores
        (2, 8, 2, 1, "on one of 2 threads: a step is too short"),
        (2, 8, 2, 3, "2 threads, each with models of its own"),
    ],
)
def test_explain_says_how_many_threads_train(threads, hidden, rows, models, words):
    tensors = [(27, 4), (hidden, 12), (hidden,), (27, hidden), (27,)]
    one = mlpkern.MLPParams.from_tensors([torch.zeros(shape) for shape in tensors])
    params = mlpkern.MLPParams.stack([one] * models)
    batches = torch.zeros(models, 2, rows, dtype=torch.int64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with mlpkern.use_backend("cpu"):
            text = mlpkern.explain("train_steps", params, batches=batches)
    finally:
        torch.set_num_threads(before)
    assert words in text


@pytest.mark.parametrize(
    ("arguments", "error"), [(("tanh", X), ValueError), (("linear_tanh", 3), TypeError)]
)
def test_explain_refuses(arguments, error):
    with pytest.raises(error, match=r"^explain: "):
        mlpkern.explain(*arguments)


def test_why_the_compiled_module_is_missing(tmp_path):
    code = """
import sys
sys.modules["mlpkern._C"] = None  # as if it had not been built
import pathlib
import mlpkern, mlpkern.cpu
mlpkern.cpu.BUILD_INFO = pathlib.Path(sys.argv[1])
print(mlpkern.backends()["cpu"])
import torch
print(mlpkern.linear_tanh(torch.ones(1, 2), torch.ones(3, 2)).shape, mlpkern.empty_cache())
"""
    info = tmp_path / "info.json"
    info.write_text(json.dumps({"native": False, "reason": "no C++ compiler found"}))
    for path, reason in ((info, "no C++ compiler found"), (tmp_path / "none", "was not built")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "available=False" in done.stdout
        assert reason in done.stdout
        assert "torch.Size([1, 3]) None" in done.stdout
