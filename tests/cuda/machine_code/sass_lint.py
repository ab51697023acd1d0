"""Rules for the machine code of the kernels: what it must not contain, and what a kernel claims.

``claims.py`` lists the claims. For kernels of CUB only the rules about determinism hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from cubin import Code, Kernels

#: No kernel contains these: rule -> pattern of an instruction, and why not.
FORBIDDEN = {
    "local memory": (r"(LDL|STL)\b", "spilled registers, or an array indexed at run time"),
    "spin": (r"ATOMS\.CAST\.SPIN", "a float or 64-bit atomic in shared memory is a loop"),
    "float atomic": (
        r"(RED|REDG|REDS|ATOM|ATOMG|ATOMS)\..*(F16|BF16|F32|F64)",
        "the order of additions, and so the result, would change from run to run",
    ),
    # record_bad_id claims its record by one 64-bit exchange in device memory.
    "compare and swap": (
        r"ATOM[GS]?\.(?!E\.CAS\.64).*CAS\b",
        "an atomic that the GPU does not have, emulated by a loop",
    ),
    "trap": (r"BPT", "a trap ends the context: no later call on this device would work"),
    "call out": (r"CALL\.ABS", "assert, printf or malloc on the device"),
}
DETERMINISM = {"float atomic"}

#: Kernels without `double` among their template arguments do not contain these.
DOUBLE = r"(DADD|DMUL|DFMA|DSETP|DMNMX|DMMA|F2F.*F64|I2F.*F64|F2I.*F64|MUFU.*64H)"

#: What a kernel may claim: rule -> pattern of an instruction that must be there.
REQUIRED = {
    "loads128": r"LDG\..*128",
    "stores128": r"STG\..*128",
    "shared128": r"LDS\..*128",
    "copies128": r"LDGSTS\..*128",  # cp.async
    "mma tf32": r"HMMA\.1688\.F32\.TF32",
    "mma bf16": r"HMMA\.16816\.F32\.BF16",
    "mma f16": r"HMMA\.16816\.F32$",
    "ldmatrix": r"LDSM\b",
    "exp2": r"MUFU\.EX2",
}

Claims = list[tuple[str, set[str]]]


def check(kernels: Kernels, claims: Claims) -> list[str]:
    """The problems, a line each; the last matching row of `claims` holds for a kernel."""
    problems = []
    used = set()
    for kernel, targets in kernels.items():
        rows = [row for row, (pattern, _) in enumerate(claims) if fnmatchcase(kernel, pattern)]
        used.update(rows[-1:])
        if not rows and not kernel.startswith("cub::"):
            problems.append(f"{kernel}: no row of claims.py speaks of it")
        wanted = claims[rows[-1]][1] if rows else set()
        said: dict[str, list[str]] = {}
        for target, code in targets.items():
            for problem in _check(kernel, code, wanted):
                said.setdefault(problem, []).append(target)
        problems += [f"{kernel} on {', '.join(on)}: {problem}" for problem, on in said.items()]
    allowed = {f"allow {rule}" for rule in (*FORBIDDEN, "float64")}
    for row, (pattern, wanted) in enumerate(claims):
        if row not in used:
            problems.append(f"claims.py: {pattern} speaks of no kernel")
        if unknown := sorted(wanted - REQUIRED.keys() - allowed):
            problems.append(f"claims.py: {pattern} claims {unknown}, which is no rule")
    return problems


def _check(kernel: str, code: Code, wanted: set[str]) -> Iterator[str]:
    of_cub = kernel.startswith("cub::")
    for rule, (pattern, why) in FORBIDDEN.items():
        found = _matches(code, pattern)
        if found and f"allow {rule}" not in wanted and (not of_cub or rule in DETERMINISM):
            yield f"{rule}: {', '.join(found)} ({why})"
    found = _matches(code, DOUBLE)
    if found and not of_cub and "double" not in kernel and "allow float64" not in wanted:
        yield f"float64: {', '.join(found)} (as little as 1/64 of the rate)"
    if code.endless and not of_cub:
        yield "a branch to itself"
    if code.parted:
        more = f" and {len(code.parted) - 1} more" if len(code.parted) > 1 else ""
        yield f"lanes apart: {code.parted[0]}{more}"
    for rule in sorted(wanted & REQUIRED.keys()):
        if not _matches(code, REQUIRED[rule]):
            yield f"claims {rule}, but has no {REQUIRED[rule]}"


def _matches(code: Code, pattern: str) -> list[str]:
    return sorted(opcode for opcode in code.instructions if re.match(pattern, opcode))
