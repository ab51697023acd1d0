"""The modules of the package: no circle, none hidden by a function, and few loaded at start-up."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path

from support.backends import needs_native

import mlpkern

PACKAGE = Path(mlpkern.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, also in functions; not for type checks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in full}
    return names & MODULES.keys()


def test_no_circle_of_imports():
    waiting = {name: imported(path) - {name} for name, path in MODULES.items()}
    while ready := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in ready:
            del waiting[name]
    assert not waiting  # the rest is in a circle, or imports one


def test_no_module_is_hidden_by_a_function_of_its_name():
    """``importlib.import_module(name)`` gives what the dotted path gives."""
    found = 0
    for name in MODULES.keys() - {"mlpkern.__main__"}:
        try:
            module = importlib.import_module(name)
        except ImportError:  # of an optional package
            continue
        assert functools.reduce(getattr, name.split(".")[1:], mlpkern) is module, name
        found += 1
    assert found > 100


LOADED = """
import json, sys
import torch
before = set(sys.modules)
{work}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(work: str, *arguments: str) -> set[str]:
    """The modules that ``work`` loads beyond those of ``import torch``."""
    code = LOADED.format(work=work)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@needs_native
def test_a_training_on_the_cpu_asks_no_other_backend(tmp_path):
    work = """
from mlpkern.cli import main
assert main(["train", "--steps", "2", "--hidden", "8", "--out", sys.argv[1]]) == 0"""
    found = loaded(work, str(tmp_path / "run"))
    assert "mlpkern.lm.training.trainer" in found
    unwanted = ("triton", "sympy", "torch._dynamo", "torch._inductor", "matplotlib", "optuna")
    unwanted += ("mlpkern.triton_kernels", "mlpkern.cuda.backend", "mlpkern.cuda.models")
    assert not {m for m in found if m.startswith(unwanted)}


def test_importing_the_package_loads_the_ops_alone():
    found = loaded("import mlpkern")
    assert "mlpkern.ops.linear_tanh" in found
    unwanted = ("mlpkern.fusing", "mlpkern.mlp.from_module", "mlpkern.cpu", "mlpkern._C")
    unwanted += ("mlpkern.lm", "mlpkern.triton_kernels", "mlpkern.cuda", "torch", "triton", "sympy")
    assert not {m for m in found if m.startswith(unwanted)}
    assert len(found) < 60
