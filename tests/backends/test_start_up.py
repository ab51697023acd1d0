"""What an import of the package, and a training on the CPU, load: the cost of starting up."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mlpkern

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


@pytest.mark.skipif(
    not mlpkern.backends()["cpu"].available, reason=mlpkern.backends()["cpu"].reason
)
def test_a_training_on_the_cpu_asks_no_other_backend(tmp_path):
    work = """
from mlpkern.cli import main
assert main(["train", "--steps", "2", "--hidden", "8", "--out", sys.argv[1]]) == 0"""
    found = loaded(work, str(tmp_path / "run"))
    assert "mlpkern.lm.training.trainer" in found
    unwanted = ("triton", "sympy", "torch._dynamo", "torch._inductor", "matplotlib", "optuna")
    unwanted += ("mlpkern.triton_kernels", "mlpkern.cuda.backend", "mlpkern.cuda.models")
    assert not {m for m in found if m.startswith(unwanted)}
