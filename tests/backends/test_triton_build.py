"""The check of the Triton kernels' machine code (tests/triton_kernels), which needs no GPU.

Triton compiles in processes of its own, because in this one it may be the interpreter.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "triton_kernels"

# case of known_bad.py -> what the check must report, on every target that it is compiled for
KNOWN_BAD = {
    "spills": "local memory: LDL",
    "ieee": "1 of 1 products fell to fused multiply-adds",
    "one of two": "products fell to fused multiply-adds",
    "two warps": r"no tensor-core instruction HGMMA",
    "unspoken product": "holds a product",
    "no product": "no tensor-core instruction",
    "registers": "registers, budget 16",
    "atomic": "float atomic: ",
    "float64": "float64: DMUL",
}
GOOD = {"good product", "good split", "good exact", "good copy"}


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOOLS / script, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def said() -> dict[str, dict[str, list[str]]]:
    """What the check reports for each case of known_bad.py, by target."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    done = run("known_bad.py")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", KNOWN_BAD)
def test_known_bad_kernels_are_refused(said, case):
    assert said[case]
    for target, lines in said[case].items():
        assert any(KNOWN_BAD[case] in line for line in lines), (target, lines)


@pytest.mark.parametrize("case", sorted(GOOD))
def test_good_kernels_pass(said, case):
    assert said[case]
    assert all(lines == [] for lines in said[case].values())


def test_every_case_is_expected(said):
    assert said.keys() == KNOWN_BAD.keys() | GOOD


def test_a_cache_that_is_there_is_not_asked(said, tmp_path):
    done = run("check.py", "-k", "few ids", "-j", "1", TRITON_CACHE_DIR=str(tmp_path))
    assert " kernels of 1 calls: " in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_kernel_needs_a_row_and_a_call(said):
    code = f"""
import sys
sys.path.insert(0, {str(TOOLS)!r})
import check
names = set(check.KERNELS)
assert check.completeness(names) == []
gone = names.pop()
assert check.completeness(names) == [f"{{gone}}: launched by no call of kernel_calls.py"]
del check.KERNELS[gone]
check.KERNELS["no_kernel"] = None
assert check.completeness(names | {{gone}}) == sorted(
    [
        f"{{gone}}: no row of kernel_calls.py speaks of it",
        "kernel_calls.py: no_kernel speaks of no kernel",
    ]
)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
