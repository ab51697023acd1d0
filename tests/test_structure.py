"""The shape of the tree: which module imports which, short files, one stem per op."""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.import_graph import circles, import_graph, imported

import mlpkern
from mlpkern import registry

PACKAGE = Path(mlpkern.__file__).parent
ROOT = PACKAGE.parent
OPS = ["cross_entropy", "embedding_gather", "embedding_linear_tanh", "linear_tanh"]
RUNS = ["evaluate", "train_steps"]  # ops that autograd does not see
ABSENT = {"cuda": ["embedding_linear_tanh"], "triton": ["embedding_linear_tanh", *RUNS]}

MOST_FILES, MOST_LINES = 15, 300
SOURCES = (".py", ".pyi", ".cpp", ".h", ".cu", ".cuh", ".sh")

# The parts from the highest to the lowest: a line imports itself and the lines below. Those of
# mlpkern as a whole stand in docs/development/architecture.md, see tests/docs/test_architecture.py.
ORDERS = {
    "mlpkern": """
mlpkern.__main__
mlpkern.cli
mlpkern.lm
mlpkern.lm.public
mlpkern.lm.search
mlpkern.lm.plots
mlpkern.lm.analysis
mlpkern.lm.many
mlpkern.lm.training
mlpkern.lm.saved
mlpkern.lm.model
mlpkern.lm.words
mlpkern.lm.plan_file mlpkern.lm.arguments
mlpkern.lm.errors mlpkern.lm.memory mlpkern.lm.atomic_write
mlpkern
""",
    "bench": """
bench.gpu
bench.run bench.chart bench.learners bench.lr_grid bench.seeds bench.sweep bench.yardsticks
bench.runner bench.result_files bench.options
bench.report bench.keep_pages
bench.suites
bench.ops bench.cuda
bench.training
bench.shown
bench.core
bench
""",
}


@functools.cache
def graph(package: str):
    return import_graph(ROOT / package)


def needs(package: str) -> None:
    if not (ROOT / package).is_dir():
        pytest.skip(f"no {package} here")


@pytest.mark.parametrize("package", ["mlpkern", "bench"])
def test_no_circle_of_imports(package):
    needs(package)
    assert list(circles(graph(package))) == []


@pytest.mark.parametrize("package", ["mlpkern", "bench"])
def test_imports_go_down(package):
    needs(package)
    rank = {name: n for n, line in enumerate(ORDERS[package].split("\n")) for name in line.split()}

    def place(module: str) -> int:
        while module not in rank:
            module = module.rpartition(".")[0]
        return rank[module]

    up = [
        f"{module} imports {other}"
        for module, others in graph(package).items()
        for other in others
        if place(other) < place(module)
    ]
    assert up == []


def test_circles_are_found():
    chain = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "c"}, "e": {"e"}}
    assert list(circles(chain)) == [["b", "c"], ["e"]]


@pytest.mark.parametrize(
    "module", sorted(import_graph(PACKAGE).keys() - {"mlpkern.__main__", "mlpkern._C"})
)
def test_no_module_is_shadowed_by_a_function(module):
    """``import a.b.c`` gives the module also where it is then called by its dotted path."""
    loaded = importlib.import_module(module)
    by_path = functools.reduce(getattr, module.split(".")[1:], mlpkern)
    assert by_path is loaded


def test_only_the_command_line_knows_of_arguments():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] != "cli":
            assert "argparse" not in imported(path), path


def test_the_reference_stands_alone():
    """Its formulas can be read, and copied, without the rest of the package."""
    for module, others in graph("mlpkern").items():
        if module.startswith("mlpkern.reference"):
            assert all(other.startswith("mlpkern.reference") for other in others), module


def test_only_the_compiled_backends_import_the_compiled_module():
    allowed = {"cpu.py", "cuda/backend.py", "cuda/models.py", "__init__.py", "info.py"}
    for path in sorted(PACKAGE.rglob("*.py")):
        if any(name.startswith("mlpkern._C") for name in imported(path)):
            assert path.relative_to(PACKAGE).as_posix() in allowed, path


def tracked() -> list[Path]:
    """The files that git knows, which are those of the project."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.exists()]


def test_a_folder_holds_few_files():
    folders: dict[Path, int] = {}
    for path in tracked():
        folders[path.parent] = folders.get(path.parent, 0) + 1
    too_many = {str(f.relative_to(ROOT)): n for f, n in folders.items() if n > MOST_FILES}
    assert too_many == {}


def test_files_are_short():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_bytes().splitlines())
        for path in tracked()
        if path.suffix in SOURCES
    }
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}


def test_no_test_module_imports_another():
    """Names that tests share are in tests/support."""
    for path in Path(__file__).parent.rglob("*.py"):
        for name in imported(path):
            assert not any(part.startswith("test_") for part in name.split(".")), (path, name)


@pytest.mark.parametrize("op", OPS + RUNS)
def test_the_same_stem_in_every_folder(op):
    assert (PACKAGE / "ops" / f"{op}.py").is_file()
    assert (PACKAGE / "reference" / f"{op}.py").is_file()
    folder = "mlp" if op in RUNS else "ops"
    assert (Path(__file__).parent / folder / f"test_{op}.py").is_file()
    if (ROOT / "csrc").is_dir():  # absent from a wheel
        assert (ROOT / "csrc" / "cpu" / f"{op}.cpp").is_file()
        assert registry.has_op("cuda", op) == (ROOT / "csrc" / "cuda" / f"{op}.cu").is_file()
    assert registry.has_op("triton", op) == (PACKAGE / "triton_kernels" / f"{op}.py").is_file()


@pytest.mark.parametrize("op", OPS + RUNS)
@pytest.mark.parametrize("name", registry.installed())
def test_installed_backends_have_the_ops_they_are_made_for(op, name):
    module = registry.load(name)
    if op in ABSENT.get(name, []):
        assert not registry.has_op(name, op)  # the choice then goes on to the reference
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
