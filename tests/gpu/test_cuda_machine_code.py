"""The checks of the CUDA kernels' machine code (tests/cuda/machine_code): the lint, the budget.

No GPU is needed, but nvcc, and triton, which brings cuobjdump: ``make cuda-check`` has them.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cuda import need

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tests" / "cuda" / "machine_code"
sys.path.insert(0, str(TOOLS))
import budget  # noqa: E402
import convergence  # noqa: E402
import cubin  # noqa: E402
import sass_lint  # noqa: E402

# The oldest target, that of the benchmark, and the newest: opcodes differ between them.
TARGETS = ("80", "90", "120")

# kernel of known_bad.cu -> what the lint must report, on every target
KNOWN_BAD = {
    "local_memory_kernel": "local memory: LDL, STL",
    "spill_kernel": "local memory: LDL",
    "spin_kernel": "spin: ATOMS.CAST.SPIN",
    "reduction_kernel": "float atomic: RED",
    "fetch_add_kernel": "float atomic: ATOMG.E.ADD.F32",
    "double_atomic_kernel<double>": "float atomic: RED",
    "exchange_kernel": "compare and swap: ATOMG.E.CAS.STRONG",
    "trap_kernel": "trap: BPT.TRAP",
    "assert_kernel": "call out: CALL.ABS",
    "print_kernel": "call out: CALL.ABS",
    "endless_kernel": "a branch to itself",
    "float64_kernel": "float64: DMUL",
}
# The same, on the one target that this check reads.
PARTED = {
    "mma_in_a_branch_kernel": "lanes apart: HMMA",
    "mma_after_exit_kernel": "lanes apart: HMMA",
    "mma_in_a_loop_kernel": "lanes apart: HMMA",
    "ldmatrix_in_a_branch_kernel": "lanes apart: LDSM",
}
GOOD = [
    "good_kernel",
    "good_mma_kernel",
    "good_template_kernel<bf16, 1, false>",
    "good_template_kernel<double, 4, true>",
]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> cubin.Kernels:
    """The machine code of known_bad.cu."""
    nvcc = shutil.which("nvcc")
    need(nvcc, "nvcc")
    need(cubin.find_tool("cuobjdump") and cubin.find_tool("nvdisasm"), "triton (for cuobjdump)")
    target = tmp_path_factory.mktemp("cuda") / "known_bad.o"
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in TARGETS]
    options = ["-std=c++17", "--threads=2", "-c", TOOLS / "known_bad.cu", "-o", target]
    subprocess.run([nvcc, *codes, *options], check=True)
    return cubin.read(target)


# The lint


@pytest.mark.parametrize("kernel", KNOWN_BAD)
def test_known_bad_kernels_are_refused(kernels: cubin.Kernels, kernel: str) -> None:
    said = sass_lint.check({kernel: kernels[kernel]}, [("*", set())])
    for target in TARGETS:
        lines = [line for line in said if f"sm_{target}" in line.split(": ")[0]]
        assert any(KNOWN_BAD[kernel] in line for line in lines), said


@pytest.mark.parametrize("kernel", PARTED)
def test_instructions_of_a_whole_warp_in_a_part_of_it_are_refused(
    kernels: cubin.Kernels, kernel: str
) -> None:
    said = sass_lint.check({kernel: kernels[kernel]}, [("*", set())])
    lines = [line for line in said if convergence.TARGET in line.split(": ")[0]]
    assert any(PARTED[kernel] in line for line in lines), said


def test_an_atomic_of_pairs_is_refused_in_each_of_its_forms(kernels: cubin.Kernels) -> None:
    said = sass_lint.check({"p": kernels["pair_atomic_kernel"]}, [("*", set())])
    assert any("p on sm_80: compare and swap" in line for line in said)
    assert any("p on sm_90, sm_120: float atomic" in line for line in said)


@pytest.mark.parametrize("claim", sorted(sass_lint.REQUIRED))
def test_a_claim_that_does_not_hold_is_refused(kernels: cubin.Kernels, claim: str) -> None:
    said = sass_lint.check({"s": kernels["scalar_kernel"]}, [("s", {claim})])
    assert len(said) == 1
    assert said[0].startswith(f"s on sm_80, sm_90, sm_120: claims {claim}, ")


def test_good_kernels_pass(kernels: cubin.Kernels) -> None:
    good = {name: kernels[name] for name in GOOD}
    assert sass_lint.check(good, [("*", set()), ("good_kernel", {"loads128", "stores128"})]) == []
    assert set(kernels) == {*KNOWN_BAD, *PARTED, *GOOD, "pair_atomic_kernel", "scalar_kernel"}


def test_instructions_of_a_whole_warp_are_volatile() -> None:
    # Otherwise the compiler may move one into the only branch that uses its result.
    text = (ROOT / "csrc" / "cuda" / "device" / "ptx.cuh").read_text()
    collective = [part for part in re.split(r"(?=\basm\b)", text) if ".sync" in part.split(";")[0]]
    assert len(collective) == 5
    assert all(part.startswith("asm volatile") for part in collective)


def test_every_kernel_needs_a_row_and_every_row_a_kernel(kernels: cubin.Kernels) -> None:
    good = {"good_kernel": kernels["good_kernel"]}
    assert sass_lint.check(good, []) == ["good_kernel: no row of claims.py speaks of it"]
    said = sass_lint.check(good, [("gone_kernel", set()), ("*", set()), ("good_*", {"loads256"})])
    assert said == [
        "claims.py: gone_kernel speaks of no kernel",
        "claims.py: * speaks of no kernel",
        "claims.py: good_* claims ['loads256'], which is no rule",
    ]


def test_what_is_allowed_is_not_refused(kernels: cubin.Kernels) -> None:
    bad = {name: kernels[name] for name in ("float64_kernel", "trap_kernel")}
    claims = [("float64_kernel", {"allow float64"}), ("trap_kernel", {"allow trap"})]
    said = sass_lint.check(bad, claims)
    assert {line.split(": ", 1)[1] for line in said} == {"a branch to itself"}  # of the trap


# The budget


def test_the_budget_holds_what_was_written(kernels: cubin.Kernels, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    budget.write(kernels, "13.0", path)
    assert budget.check(kernels, "13.0", path) == []
    record = json.loads(path.read_text())
    assert record["targets"] == [f"sm_{target}" for target in TARGETS]
    assert record["kernels"]["local_memory_kernel"]["stack"] == 256
    spilled = record["kernels"]["spill_kernel"]["stack"]
    assert min(spilled if isinstance(spilled, list) else [spilled]) > 0
    assert record["kernels"]["good_kernel"]["shared"][0] == 128


@pytest.mark.parametrize("figure", budget.FIGURES)
def test_more_than_the_budget_is_refused(
    kernels: cubin.Kernels, tmp_path: Path, figure: str
) -> None:
    path = tmp_path / "budget.json"
    budget.write(kernels, "13.0", path)
    more = copy.deepcopy(kernels)
    code = more["good_kernel"]["sm_90"]
    before = getattr(code, figure)
    setattr(code, figure, before + 1)
    expected = f"good_kernel on sm_90: {figure} {before + 1}, budget {before}"
    assert budget.check(more, "13.0", path) == [expected]
    setattr(code, figure, before - 1)
    assert budget.check(more, "13.0", path) == []


def test_code_is_compared_with_the_same_nvcc_only(kernels: cubin.Kernels, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    budget.write(kernels, "13.0", path)
    more = copy.deepcopy(kernels)
    more["good_kernel"]["sm_90"].registers += 1
    more["good_kernel"]["sm_90"].length += 1
    more["good_kernel"]["sm_90"].stack += 8
    assert budget.check(more, "13.1", path) == ["good_kernel on sm_90: stack 8, budget 0"]
    assert "code not compared" in budget.notes(more, "13.1", path)[0]
    assert budget.notes(more, "13.0", path) == []


def test_the_budget_and_the_library_hold_the_same_kernels(
    kernels: cubin.Kernels, tmp_path: Path
) -> None:
    path = tmp_path / "budget.json"
    budget.write({name: kernels[name] for name in GOOD[:2]}, "13.0", path)
    found = {name: dict(kernels[name]) for name in GOOD[1:3]}
    del found[GOOD[1]]["sm_90"]
    assert budget.check(found, "13.0", path) == [
        f"{GOOD[1]}: compiled or budgeted, but not both, for ['sm_90']",
        f"{GOOD[2]}: not in budget.json",
        f"{GOOD[0]}: in budget.json, but not in the library",
    ]


def test_triton_carries_the_disassembler() -> None:
    if importlib.util.find_spec("triton") is None:
        need(False, "triton")
    assert cubin.find_tool("cuobjdump")
    assert cubin.find_tool("nvdisasm")
