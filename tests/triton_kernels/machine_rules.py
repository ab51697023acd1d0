"""What the machine code of a Triton kernel may not contain, and what it must."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sass_lint
from kernel_calls import Row
from offline import Compiled

#: The tensor cores' own instructions of each card; an older form runs there at a fraction of it.
TENSOR = {"sm_80": r"HMMA\.", "sm_90": r"HGMMA\.", "sm_100": r"UTC\w*MMA"}

#: A product that was left to fused multiply-adds keeps the layout of ordinary numbers.
FALLEN = re.compile(r"= tt\.dot (?P<options>.*?) : .*-> tensor<[^>]*#blocked\d*>")
PRODUCT = re.compile(r"= (tt\.dot|ttng\.warp_group_dot) |ttng\.tc_gen5_mma ")


def problems(compiled: Compiled, row: Row) -> Iterator[str]:
    """What is wrong with a kernel, a line each."""
    code = compiled.code
    if code.registers > row.registers:
        yield f"{code.registers} registers, budget {row.registers}"
    if code.stack:
        yield f"local memory: {code.stack} bytes of stack"
    # What guards the tensor memory of sm_100 is ptxas's own; the kernels hold no trap.
    allowed = {"allow trap"} if compiled.target == "sm_100" and row.products else set()
    if row.float64:
        allowed.add("allow float64")
    for line in sass_lint.check({"": {"": code}}, [("*", allowed)]):
        yield line.removeprefix(" on : ")
    yield from _products(compiled, row)


def _products(compiled: Compiled, row: Row) -> Iterator[str]:
    fallen = [match["options"] for match in FALLEN.finditer(compiled.ttgir)]
    exact = [options for options in fallen if "inputPrecision" not in options]
    count = len(PRODUCT.findall(compiled.ttgir))
    if not row.products:
        if count:
            yield "holds a product, of which kernel_calls.py does not speak"
        return
    if row.products != "exact":
        exact = []
    if len(fallen) > len(exact):
        yield f"{len(fallen) - len(exact)} of {count} products fell to fused multiply-adds"
    pattern = TENSOR[compiled.target]
    tensor = any(re.match(pattern, opcode) for opcode in compiled.code.instructions)
    if not tensor and not (count and len(exact) == count):
        yield f"no tensor-core instruction {pattern}"
