"""What a command loads: no backend that it does not use, and few packages."""

from __future__ import annotations

import json

import pytest
from support.backends import needs_native, run_python

LOADED = """
import json, sys
import torch
before = set(sys.modules)
{work}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(work: str, *arguments: str) -> set[str]:
    """The modules that ``work`` loads beyond those of ``import torch``."""
    done = run_python("-c", LOADED.format(work=work), *arguments)
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
    found = loaded("import mlpkern")  # after torch
    assert "mlpkern.ops.linear_tanh" in found
    unwanted = ("mlpkern.fusing", "mlpkern.mlp.from_module", "mlpkern.cpu", "mlpkern._C")
    unwanted += ("mlpkern.lm", "mlpkern.triton_kernels", "mlpkern.cuda", "torch", "triton", "sympy")
    assert not {m for m in found if m.startswith(unwanted)}
    assert len(found) < 60


BEFORE_TORCH = """
import sys
import mlpkern
assert not {"torch", "numpy", "mlpkern.registry"} & set(sys.modules)
assert mlpkern.__version__ and set(mlpkern.__all__) <= set(dir(mlpkern))
"""


@pytest.mark.parametrize(
    "use",
    [
        "from mlpkern import *\nassert {*mlpkern.__all__} - {'__version__'} <= {*globals()}",
        "assert mlpkern.Backend and mlpkern.registry.status and mlpkern.reference.linear_tanh",
        "from mlpkern import functional\nassert vars(mlpkern)['functional'] is functional",
        "assert not hasattr(mlpkern, 'absent') and not hasattr(mlpkern, '_absent')",
        "mlpkern.empty_cache()",
        """
import torch
def f(x, w):
    return mlpkern.linear_tanh(x, w).sum()
x, w = torch.randn(2, 3), torch.randn(4, 3)
compiled = torch.compile(f, fullgraph=True, backend="eager")(x, w)
assert torch.allclose(compiled, f(x, w))
assert "linear_tanh" in vars(mlpkern)""",
    ],
)
def test_names_are_there_also_if_torch_comes_later(use):
    done = run_python("-W", "error", "-c", BEFORE_TORCH + use)
    assert done.returncode == 0, done.stderr
