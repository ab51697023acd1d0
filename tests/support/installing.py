"""A source tree to install the package from, and an environment to install it into.

One of each serves all tests; conftest.py registers the fixtures.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "out", "results", "*.egg-info", "*.so", "_build_info.json",
    "__pycache__", ".*_cache",
)  # fmt: skip

# One training step on the automatic backend; prints the facts of `mlpkern info` as JSON.
EXERCISE = """
import json, sys, torch, mlpkern
from mlpkern import info
e, w, b = (torch.randn(*s, requires_grad=True) for s in ((27, 10), (27, 30), (27,)))
ids = torch.randint(27, (8, 3))
h = mlpkern.linear_tanh(mlpkern.embedding_gather(ids, e), w, b)
torch.testing.assert_close(h, torch.tanh(torch.nn.functional.linear(e[ids].flatten(1), w, b)))
mlpkern.cross_entropy(h, ids[:, 0]).backward()
assert e.grad.abs().sum() > 0
from mlpkern.lm.words import data
facts = info.collect()
facts.update(file=mlpkern.__file__, explain=mlpkern.explain("linear_tanh", torch.ones(2, 30), w, b))
facts.update(report=info.report())
print(json.dumps(facts))
"""

# To save time most cases build for one instruction set and without CUDA: they name an nvcc that
# does not exist, as the real one may be anywhere. Equal settings share what is compiled. The
# install that runs the tests has compiled everything.
LITTLE = {"CUDACXX": "/nowhere/nvcc", "MLPKERN_ISAS": "baseline"}


def packaging(function):
    return pytest.mark.packaging(function)


class Environment:
    """A virtual environment that sees the packages of the running one."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        self.python = folder / "bin" / "python"
        site = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        # A plain path: .pth files in that folder, such as an editable install's, are not read.
        Path(site, "layer.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(
        self, *arguments: str, check: bool = True, cwd: Path | None = None, **extra: str
    ) -> str:
        variables = {k: v for k, v in os.environ.items() if not k.startswith("MLPKERN_")}
        done = subprocess.run(
            [str(self.python), *arguments],
            env={**variables, **LITTLE, **extra},
            cwd=cwd or self.python.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert (done.returncode == 0) == check, done.stdout
        return done.stdout

    def install(self, *arguments: str, check: bool = True, **extra: str) -> str:
        return self.run("-m", "pip", "install", "--no-deps", *arguments, check=check, **extra)

    def exercise(self) -> dict:
        return json.loads(self.run("-c", EXERCISE).splitlines()[-1])


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources as a clone has them."""
    copy = tmp_path_factory.mktemp("tree") / "mlpkern"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCES)
    return copy


def read_record(tree: Path) -> dict:
    return json.loads((tree / "mlpkern" / "_build_info.json").read_text(encoding="utf-8"))


def libraries(tree: Path) -> list[str]:
    return [path.name for path in (tree / "mlpkern").glob("*.so")]
