"""The build of ``_cuda.so`` and the checks of its machine code (tests/cuda/machine_code).

No GPU is needed.

Needs nvcc, and from the extra `dev` cmake, ninja and triton: ``make cuda-check`` has them all.
"""

from __future__ import annotations

import copy
import ctypes
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlpkern

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tests" / "cuda" / "machine_code"
sys.path.insert(0, str(TOOLS))
import budget  # noqa: E402
import convergence  # noqa: E402
import cubin  # noqa: E402
import sass_lint  # noqa: E402

# The oldest target, that of the benchmark, the newest: opcodes differ between them.
TARGETS = ("80", "90", "120")
LIBRARY = Path(mlpkern.__file__).with_name("_cuda.so")

# kernel of known_bad.cu -> what the lint must say of it, on every target
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
# The same, on the target for which it is asked.
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


def need(found: object, name: str) -> None:
    if not found:
        message = f"{name} is not installed"
        if os.environ.get("MLPKERN_CUDA_CHECK", "0") not in ("", "0"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> cubin.Kernels:
    """What nvcc makes of known_bad.cu."""
    nvcc = shutil.which("nvcc")
    need(nvcc, "nvcc")
    need(cubin.find_tool("cuobjdump") and cubin.find_tool("nvdisasm"), "triton (for cuobjdump)")
    target = tmp_path_factory.mktemp("cuda") / "known_bad.o"
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in TARGETS]
    options = ["-std=c++17", "--threads=2", "-c", TOOLS / "known_bad.cu", "-o", target]
    subprocess.run([nvcc, *codes, *options], check=True)
    return cubin.read(target)


# --- The lint ------------------------------------------------------------------------------------
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
    # Otherwise the compiler may move one into a branch that alone uses its result.
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


# --- The budget ----------------------------------------------------------------------------------
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


# --- The targets, by CMake -----------------------------------------------------------------------
def fake(folder: Path, name: str, lines: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


def fake_nvcc(folder: Path, release: str, known: str) -> Path:
    version = f"echo 'Cuda compilation tools, release {release}, V{release}.1'"
    knows = f"printf 'compute_%s\\n' {known}"
    lines = f"case $1 in --version) {version};; --list-gpu-arch) {knows};; *) exit 1;; esac"
    return fake(folder, "nvcc", lines)


def configured(folder: Path, wanted: str = "", cards: str = "", **variables: str) -> dict:
    """What CMake decides about CUDA, with cards of these compute capabilities in the machine."""
    need(shutil.which("cmake"), "cmake")
    need(shutil.which("ninja"), "ninja")
    fake(folder, "nvidia-smi", f"printf '%s\\n' {cards}" if cards else "exit 9")
    fake(folder, "__nvcc_device_query", "exit 1")
    subprocess.run(
        [
            *("cmake", "-S", ROOT, "-B", folder / "build", "-G", "Ninja", "-DMLPKERN_PYTHON=OFF"),
            *(f"-DMLPKERN_CUDA_ARCHITECTURES={wanted}", "-DMLPKERN_ISAS=baseline"),
        ],
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **variables},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return json.loads((folder / "build" / "configured.json").read_text())["cuda"]


CUDA_13 = "75 80 86 87 88 89 90 100 110 103 120 121"
ALL = "sm_80 sm_86 sm_89 sm_90 sm_100 sm_120 compute_120"


@pytest.mark.parametrize(
    ("wanted", "cards", "targets"),
    [
        ("", "", ALL),
        ("all", "9.0", ALL),
        ("", "9.0", "sm_90"),
        ("native", "8.6 9.0 9.0", "sm_86 sm_90"),
        ("", "7.5 8.0", "sm_80"),  # the kernels need sm_80
        ("", "7.5", ALL),
        ("", "12.2", "sm_121"),  # machine code of the same generation
        ("", "13.0", "compute_121"),  # a generation that this nvcc does not know
        ("90", "", "sm_90 compute_90"),
        ("80-real,90-virtual", "8.9", "sm_80 compute_90"),
        ("90a-real", "", "sm_90a"),
    ],
)
def test_targets(tmp_path: Path, wanted: str, cards: str, targets: str) -> None:
    fake_nvcc(tmp_path, "13.0", CUDA_13)
    cuda = configured(tmp_path, wanted, cards)
    assert cuda == {
        "reason": "",
        "nvcc": f"{tmp_path / 'nvcc'} 13.0",
        "targets": targets,
        "note": "",
    }


def test_an_old_nvcc_leaves_out_what_it_does_not_know(tmp_path: Path) -> None:
    fake_nvcc(tmp_path, "12.4", "50 80 86 87 89 90")
    cuda = configured(tmp_path)
    assert cuda["reason"] == ""
    assert cuda["targets"] == "sm_80 sm_86 sm_89 sm_90 compute_90"
    assert cuda["note"] == "CUDA 12.4 does not know sm_100, sm_120: built without"


@pytest.mark.parametrize(
    ("wanted", "known", "variables", "reason"),
    [
        ("90;130", CUDA_13, {}, "CUDA 13.0 does not know sm_130, named in"),
        ("9.0", CUDA_13, {}, "MLPKERN_CUDA_ARCHITECTURES has 9.0, expected all, native, or"),
        ("native", CUDA_13, {}, "is native, and no card from sm_80 on is visible"),
        ("", "35 50 75", {}, "is CUDA 13.0, which does not know sm_80"),
        ("", CUDA_13, {"CUDACXX": "/nowhere/nvcc"}, "CUDACXX names /nowhere/nvcc, which was not"),
        ("", CUDA_13, {"CUDACXX": "false"}, "false --version failed (1)"),
    ],
)
def test_no_cuda_says_why(
    tmp_path: Path, wanted: str, known: str, variables: dict, reason: str
) -> None:
    fake_nvcc(tmp_path, "13.0", known)
    cuda = configured(tmp_path, wanted, **variables)
    assert reason in cuda["reason"]


@pytest.mark.parametrize(
    "source", sorted((ROOT / "csrc" / "cuda").glob("*.cu")), ids=lambda p: p.stem
)
def test_a_changed_header_compiles_what_includes_it(tmp_path: Path, source: Path) -> None:
    fake_nvcc(tmp_path, "13.0", CUDA_13)
    configured(tmp_path)
    build = tmp_path / "build"
    command = ["ninja", "-C", build, "-t", "query", f"csrc/cuda/{source.stem}.o"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = {line.strip(" |") for line in said.splitlines()}
    compiler = shutil.which("g++")
    need(compiler, "g++")
    # -MG: what it does not find is a header of CUDA.
    asked = [compiler, "-x", "c++", "-std=c++17", "-MM", "-MG", f"-I{ROOT / 'csrc'}", source]
    rule = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    headers = {word for word in rule.split() if word.startswith(str(ROOT)) and word != str(source)}
    assert headers
    assert headers <= known


def test_a_launcher_before_the_compiler_is_not_taken_for_one(tmp_path: Path) -> None:
    fake_nvcc(tmp_path, "13.0", CUDA_13)
    need(shutil.which("g++"), "g++")
    launcher = fake(tmp_path, "launcher", 'exec "$@"')
    configured(tmp_path, CXX=f"{launcher} g++")
    text = (tmp_path / "build" / "build.ninja").read_text()
    assert "nvcc -std=c++17" in text
    assert f"-ccbin={launcher}" not in text


# --- The library ---------------------------------------------------------------------------------
@pytest.fixture
def library() -> Path:
    if not LIBRARY.exists():
        need(False, "mlpkern/_cuda.so")
    return LIBRARY


def test_one_symbol_is_exported_and_no_runtime_is_needed(library: Path) -> None:
    shown = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in shown.stdout.splitlines()] == ["mlpkern_cuda_library"]
    shown = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    needed = [line.split("[")[1] for line in shown.stdout.splitlines() if "(NEEDED)" in line]
    assert not [name for name in needed if name.startswith(("libcuda", "libtorch", "libpython"))]


def test_the_library_loads_without_a_driver(library: Path) -> None:
    table = ctypes.CDLL(str(library)).mlpkern_cuda_library
    table.restype = ctypes.c_void_p
    assert table()


def test_triton_carries_the_disassembler() -> None:
    if importlib.util.find_spec("triton") is None:
        need(False, "triton")
    assert cubin.find_tool("cuobjdump")
    assert cubin.find_tool("nvdisasm")
