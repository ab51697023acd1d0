"""The machine code for aarch64, cross-compiled by .ci/neon: `make neon` runs these tests."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = ["gcc", "clang"]

pytestmark = pytest.mark.skipif(
    "MLPKERN_NEON_CHECK" not in os.environ, reason="cross-compiled objects: make neon"
)


def objects(compiler: str) -> Path:
    return ROOT / f"build/neon-{compiler}/CMakeFiles/mlpkern_neon.dir/csrc/cpu"


def output(tool: str, *arguments: str | Path) -> list[str]:
    command = [f"aarch64-linux-gnu-{tool}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def instructions(compiler: str, op: str) -> list[tuple[int, str]]:
    """(address, text) of an op's object, in order; the sections follow one another."""
    lines = output("objdump", "-d", "--no-show-raw-insn", objects(compiler) / f"{op}.cpp.o")
    found = (re.match(r" *([0-9a-f]+):\t(.+)", line) for line in lines)
    return [(int(m[1], 16), m[2]) for m in found if m]


def loops(code: list[tuple[int, str]]) -> Iterator[list[str]]:
    """The bodies of innermost loops: from a branch's target to the branch, no other between."""
    start = 0  # after the last branch
    for i, (address, text) in enumerate(code):
        branch = re.match(r"(?:b(?:\.\w+)?|cbn?z\s+\w+,|tbn?z\s+\w+, #\d+,)\s+([0-9a-f]+) <", text)
        if not branch:
            continue
        first = i - (address - int(branch[1], 16)) // 4
        if start <= first < i:
            yield [line for _, line in code[first : i + 1]]
        start = i + 1


@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_weak_symbols(compiler: str) -> None:
    listing = output("nm", "-C", *sorted(objects(compiler).glob("*.o")))
    assert [line for line in listing if re.match(r"[0-9a-f]* *[WwuVv] ", line)] == []
    assert any("mlpkern::cpu::neon::linear_tanh_forward(" in line for line in listing)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_full_tile_of_a_product_stays_in_registers(compiler: str) -> None:
    # 12 rows by 2 vectors of float32 (csrc/cpu/vector/isa/neon.h): each fmla takes the element of
    # its row as a lane, the loop loads 2 vectors and 12 elements, and spills nothing.
    tiles = [
        body
        for body in loops(instructions(compiler, "linear_tanh"))
        if sum(bool(re.match(r"fmla\s.*\.4s, v\d+\.s\[", line)) for line in body) == 24
        and not any(re.match(r"fmla\s.*\.2d", line) for line in body)
    ]
    assert tiles
    leanest = min(tiles, key=len)
    assert len(leanest) <= 48, "\n".join(leanest)
    assert sum(line.startswith("ld") for line in leanest) <= 14, "\n".join(leanest)
    assert not [line for line in leanest if re.match(r"st|dup|ld1r|ins", line)]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_conversions_and_products_are_vector_instructions(compiler: str) -> None:
    def names(op: str) -> set[str]:
        return {text.split()[0] for _, text in instructions(compiler, op)}

    assert {"fmla", "fcvtl", "fcvtn", "fcmgt"} <= names("linear_tanh") | names("cross_entropy")
    assert "umull" in names("train_steps")  # of Philox
    assert ("bfcvtn" in names("linear_tanh")) == (compiler == "clang")  # .ci/neon asks it to
