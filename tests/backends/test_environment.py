"""Environment variables: an error names a wrong value. And what an import loads."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import setuptools
import torch
from support.backends import needs_native, run_python

import mlpkern
from mlpkern import build_record, cpu, environment, info, registry
from mlpkern.cli import main
from mlpkern.lm.errors import ConfigError, MissingPackageError
from mlpkern.lm.many.jobs import kernel_threads
from mlpkern.lm.plots import require_matplotlib
from mlpkern.lm.training.engines import choose_engine

ROOT = Path(__file__).resolve().parents[2]
X = torch.randn(2, 3)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """The registry as at the start of a process, with none of the variables set."""
    monkeypatch.setattr(registry, "_chosen", {})
    for name in ("BACKEND", "ISA", "CACHE_LIMIT", "TRITON_TUNE"):
        monkeypatch.delenv(f"MLPKERN_{name}", raising=False)


WRONG = [
    ("MLPKERN_BACKEND", "foo", "MLPKERN_BACKEND: backend must be one of cpu, cuda, triton, refer"),
    ("MLPKERN_CACHE_LIMIT", "1GB", "MLPKERN_CACHE_LIMIT must be a number of bytes below 2^63"),
    ("MLPKERN_CACHE_LIMIT", "-1", "MLPKERN_CACHE_LIMIT must be a number of bytes below 2^63"),
    ("MLPKERN_CACHE_LIMIT", "9" * 25, "MLPKERN_CACHE_LIMIT must be a number of bytes below 2^63"),
    ("MLPKERN_TRITON_TUNE", "off", "MLPKERN_TRITON_TUNE must be 0 or 1, got 'off'"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_wrong_value_is_an_error_everywhere(monkeypatch, capsys, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=re.escape(message)):
        mlpkern.linear_tanh(X, X)
    with pytest.raises(ConfigError, match=re.escape(message)):
        choose_engine("auto", torch.device("cpu"))
    assert main(["sample", "/nowhere"]) == 2
    assert capsys.readouterr().err.startswith(f"mlpkern sample: error: {message}")
    assert main(["info"]) == 0
    assert f"  error: {message}" in capsys.readouterr().out
    assert info.collect()["problems"][0].startswith(message)


@pytest.mark.parametrize("value", ["", "0", "1073741824"])
def test_right_values(monkeypatch, value):
    monkeypatch.setenv("MLPKERN_CACHE_LIMIT", value)
    monkeypatch.setenv("MLPKERN_TRITON_TUNE", value[:1])
    assert environment.problems() == []
    assert environment.cache_limit() == (int(value) if value else None)
    assert environment.triton_tune() == (value != "0")
    mlpkern.linear_tanh(X, X)


def test_a_backend_that_cannot_run_or_serve_is_told_before_the_work(monkeypatch, capsys):
    monkeypatch.setenv("MLPKERN_BACKEND", "cuda")
    monkeypatch.setitem(registry._status, "cuda", registry.Backend(False, "no card", "Buy one."))
    message = "MLPKERN_BACKEND: backend cuda cannot run here: no card. Buy one."
    assert main(["find-lr"]) == 2
    assert message in capsys.readouterr().err
    monkeypatch.setitem(registry._status, "cuda", registry.Backend(True, "", "a card"))
    with pytest.raises(ConfigError, match=r"^MLPKERN_BACKEND: backend cuda runs on cuda tensors"):
        choose_engine("auto", torch.device("cpu"))
    assert choose_engine("stock", torch.device("cpu"))[0].name == "stock"
    dataset = mlpkern.lm.build_dataset(["ab", "ba", "aab", "bba", "b"] * 4, block_size=2)
    model = mlpkern.lm.MLPLanguageModel(3, 2, 2, 4)
    with pytest.raises(ConfigError, match=r"^lr_finder: MLPKERN_BACKEND: backend cuda runs on"):
        mlpkern.lm.lr_finder(model, dataset.splits["train"])
    with pytest.raises(ConfigError, match=r"^population: MLPKERN_BACKEND: backend cuda runs on"):
        mlpkern.lm.population([mlpkern.lm.TrainConfig(block_size=2)], dataset)


ISA = """
import json, mlpkern, torch
from mlpkern import info
try:
    mlpkern.linear_tanh(torch.ones(2, 3), torch.ones(2, 3))
    said = "computed"
except ValueError as error:
    said = str(error)
facts = info.collect()
print(json.dumps([said, facts["backends"]["cpu"]["reason"], facts["problems"]]))
print(facts["native"]["cache"]["limit_bytes"])
"""


@needs_native
def test_an_instruction_set_that_cannot_be_used_is_an_error():
    from mlpkern import _C

    available = _C.isas_available()
    lacking = ["sse9", *build_record.read()["isas"]]
    wrong = {
        **dict.fromkeys(lacking, "is no instruction set of this CPU"),
        # Every CPU runs it, but "native" builds nothing else than the best.
        "baseline": f"was not built (`MLPKERN_ISAS={available},baseline pip install -e .`)",
    }
    for isa in wrong.keys() - set(available.split(",")):
        done = run_python("-c", ISA, MLPKERN_ISA=isa, MLPKERN_CACHE_LIMIT="12345")
        assert done.returncode == 0, done.stderr
        told, limit = done.stdout.splitlines()
        said, reason, problems = json.loads(told)
        expected = f"MLPKERN_ISA is '{isa}', which {wrong[isa]}; expected one of {available}"
        assert (said, reason, problems) == (expected, expected, [expected])
        assert limit == "12345"


@needs_native
def test_a_library_for_another_cpu_leaves_the_rest(monkeypatch):
    """tests/cpp/test_nothing_runs.cpp is the compiled half."""
    reason = "mlpkern._C was built for avx512, which this CPU does not run"
    monkeypatch.setattr(cpu, "isa", lambda: "none")
    monkeypatch.setattr(cpu, "isa_error", lambda: reason)
    monkeypatch.setattr(registry, "_status", {})
    assert mlpkern.explain("linear_tanh", X, X).startswith("linear_tanh runs on reference")
    assert torch.equal(mlpkern.linear_tanh(X, X), torch.tanh(X @ X.T))
    assert kernel_threads(torch.device("cpu")) == 1
    assert info.collect()["problems"] == []
    assert f"missing: {reason}" in info.report()
    with (
        pytest.raises(RuntimeError, match=f"backend cpu cannot run here: {reason}"),
        mlpkern.use_backend("cpu"),
    ):
        pass


def test_matplotlib_that_refuses_its_settings_is_not_called_missing(monkeypatch):
    def refuse(name, *_):
        raise ValueError("Key backend: 'foo' is not a valid value for backend")

    monkeypatch.setenv("MPLBACKEND", "foo")
    monkeypatch.setattr("builtins.__import__", refuse)
    with pytest.raises(ConfigError, match=r"MPLBACKEND is 'foo'; unset it or .*: Key backend: "):
        require_matplotlib()


def test_a_package_that_does_not_import_is_not_called_missing():
    broken = ImportError("libfoo.so: cannot open")
    for error, said in [
        (ModuleNotFoundError("No module named 'optuna'", name="optuna"), "not installed: pip "),
        (ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy"), "No module na"),
        (broken, "does not import here: libfoo.so"),
    ]:
        assert said in str(MissingPackageError.of("a sweep needs", "optuna", "sweep", error))


IMPORT = """
import sys
import mlpkern
heavy = {"mlpkern.lm", "mlpkern.cli", "triton", "optuna", "matplotlib", "yaml", "mlpkern._C"}
print(sorted(heavy & set(sys.modules)))
assert "lm" in dir(mlpkern) and "mlpkern.lm" not in sys.modules
print(mlpkern.lm.population.__class__.__name__, mlpkern.lm is sys.modules["mlpkern.lm"])
import mlpkern.lm.many.population
from mlpkern.lm.many.population import Population
from mlpkern.lm import population
print(mlpkern.lm.population is population, callable(population))
print(sorted({"triton", "optuna", "matplotlib", "yaml"} & set(sys.modules)))
try:
    mlpkern.ml
except AttributeError as error:
    print(error)
"""


def test_the_language_model_is_there_at_its_first_use():
    done = run_python("-c", IMPORT)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[]", "function True", "True True", "[]", "module 'mlpkern' has no attribute 'ml'",
    ]  # fmt: skip


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="installed from a wheel")
def test_wrong_values_of_the_build(monkeypatch):
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    build = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
    for name, value, call, message in [
        ("MLPKERN_REQUIRE_CUDA", "yes", lambda: build["is_set"]("MLPKERN_REQUIRE_CUDA"), "0 or 1"),
        ("MAX_JOBS", "many", build["jobs"], "MAX_JOBS must be a whole number above 0, got 'many'"),
        ("MAX_JOBS", "0", build["jobs"], "MAX_JOBS must be a whole number above 0, got '0'"),
        ("MLPKERN_CMAKE_ARGS", "'", build["cmake_arguments"], "MLPKERN_CMAKE_ARGS cannot be split"),
    ]:
        monkeypatch.setenv(name, value)
        with pytest.raises((SystemExit, build["NativeBuildError"]), match=message):
            call()
        monkeypatch.setenv(name, "")
        assert not call()


class Asked(Exception):
    """What setup.py would have built."""


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="installed from a wheel")
@pytest.mark.parametrize(
    ("kind", "isas"), [("inplace", "native"), ("editable_mode", "native"), ("", "all")]
)
def test_only_a_wheel_is_built_for_other_machines(monkeypatch, kind, isas):
    def ask(folder, isas):
        raise Asked(isas)

    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    command_class = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["CMakeBuild"]
    command_class.run.__globals__["build"] = ask
    command = command_class(setuptools.Distribution())
    command.build_lib = "build"
    if kind:
        setattr(command, kind, True)
    with pytest.raises(Asked, match=f"^{isas}$"):
        command.run()
