"""The shape of the tree: who imports whom, one stem per op, and an import that needs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlpkern
from mlpkern.registry import has_op, installed, load

PACKAGE = Path(mlpkern.__file__).parent
ROOT = PACKAGE.parent
OPS = ["cross_entropy", "embedding_gather", "embedding_linear_tanh", "linear_tanh"]
RUNS = ["evaluate", "train_steps"]  # ops that autograd does not see
ABSENT = {"cuda": ["embedding_linear_tanh"], "triton": ["embedding_linear_tanh", *RUNS]}


def imported(path: Path) -> set[str]:
    """The absolute names of the modules that a file imports, wherever in the file.

    What only a type checker imports is left out.
    """
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)
    ]
    never = {id(inner) for block in checked for inner in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in never:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(*parts: str) -> list[Path]:
    place = PACKAGE.joinpath(*parts)
    return [place] if place.suffix else sorted(place.rglob("*.py"))


def test_the_ops_never_import_the_language_model():
    above = {"lm", "cli", "__main__"}
    for path in files():
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") in above:
            continue
        for name in imported(path):
            assert not name.startswith(("mlpkern.lm", "mlpkern.cli")), f"{path} imports {name}"


def test_only_the_command_line_knows_of_arguments():
    for path in files():
        if path.relative_to(PACKAGE).parts[0] not in ("cli", "__main__.py"):
            for name in imported(path):
                assert not name.startswith(("mlpkern.cli", "argparse")), f"{path} imports {name}"


def test_the_reference_stands_alone():
    for path in files("reference"):
        for name in imported(path):
            assert not name.startswith("mlpkern.") or name.startswith("mlpkern.reference"), name


def test_only_the_compiled_backends_import_the_compiled_module():
    for path in files():
        if any(name.startswith("mlpkern._C") for name in imported(path)):
            allowed = ("cpu.py", "cuda/backend.py", "cuda/models.py", "__init__.py", "info.py")
            assert path.relative_to(PACKAGE).as_posix() in allowed, path


@pytest.mark.parametrize("op", OPS + RUNS)
def test_the_same_stem_in_every_folder(op):
    assert (PACKAGE / "ops" / f"{op}.py").is_file()
    assert (PACKAGE / "reference" / f"{op}.py").is_file()
    folder = "mlp" if op in RUNS else "ops"
    assert (Path(__file__).parent / folder / f"test_{op}.py").is_file()
    if (ROOT / "csrc").is_dir():  # absent from a wheel
        assert (ROOT / "csrc" / "cpu" / f"{op}.cpp").is_file()
        assert has_op("cuda", op) == (ROOT / "csrc" / "cuda" / f"{op}.cu").is_file()
    assert has_op("triton", op) == (PACKAGE / "triton_kernels" / f"{op}.py").is_file()


@pytest.mark.parametrize("op", OPS + RUNS)
@pytest.mark.parametrize("name", installed())
def test_installed_backends_have_the_ops_they_are_made_for(op, name):
    module = load(name)
    if op in ABSENT.get(name, []):
        assert not has_op(name, op)  # the choice then goes on to the reference
        return
    if not mlpkern.backends()[name].available:
        pytest.skip(mlpkern.backends()[name].reason)
    for name in [op] if op in RUNS else [f"{op}_forward", f"{op}_backward"]:
        assert callable(getattr(module, name))
        assert name in module.__all__
    assert op in mlpkern.functional.__all__


@pytest.mark.parametrize(
    "missing", [["_C"], ["_C", "cpu", "_cuda", "cuda.backend", "triton_kernels.backend"]]
)
def test_import_works_without(missing):
    code = "import sys; sys.modules['triton'] = None\n"
    code += f"for name in {missing}: sys.modules['mlpkern.' + name] = None\n"
    code += "import torch, mlpkern\nassert mlpkern.backends()['reference'].available\n"
    code += "mlpkern.linear_tanh(torch.ones(2, 3), torch.ones(4, 3))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_loads_no_optional_package():
    code = "import sys, torch; before = set(sys.modules)\n"
    code += "import mlpkern; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    for name in ("tqdm", "safetensors", "matplotlib", "triton", "mlpkern._C", "mlpkern.lm"):
        assert name not in loaded
