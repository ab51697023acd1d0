"""Compiles the Triton kernels for cards that are not there, and checks their machine code.

``python tests/triton_kernels/check.py``: every call of kernel_calls.py in every configuration, for
sm_80, sm_90 and sm_100, in two processes; ``-k WORD`` takes the calls with that word in their name,
``-t 90`` that target alone.
Needs triton, no GPU and no CUDA toolkit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

# What reads machine code.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cuda" / "machine_code"))
import machine_rules
import offline
from kernel_calls import CALLS, KERNELS, Row

PACKAGE = Path(__file__).resolve().parents[2] / "mlpkern" / "triton_kernels"
DEFINITION = re.compile(r"^def (\w+_kernel)\(", re.M)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", default="", metavar="WORD", help="only the calls named with WORD")
    parser.add_argument(
        "-t", type=int, nargs="+", choices=offline.TARGETS, default=offline.TARGETS, metavar="SM",
        help="only these targets: 80, 90, 100",
    )  # fmt: skip
    parser.add_argument("-j", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("-v", action="store_true", help="a line for each launch")
    options = parser.parse_args()
    names = [name for name in CALLS if options.k in name]
    compiled: dict[str, offline.Compiled] = {}
    with multiprocessing.get_context("spawn").Pool(options.j) as pool:
        call = partial(compile_call, targets=tuple(options.t))
        for found in pool.imap_unordered(call, names, chunksize=1):
            compiled |= {one.hash: one for one in found}
    said = [] if options.k else completeness({one.kernel for one in compiled.values()})
    for one in compiled.values():
        for problem in machine_rules.problems(one, KERNELS.get(one.kernel, Row(0))):
            said.append(f"{one.kernel} on {one.target}: {problem}  [{one.launch}]")
    report(list(compiled.values()), options.v)
    print("\n".join(said), end="\n" if said else "")
    print(f"{len(compiled)} kernels of {len(names)} calls: {len(said)} problems")
    return 1 if said or not compiled else 0


def compile_call(name: str, targets: tuple[int, ...]) -> list[offline.Compiled]:
    return offline.compiled_by(CALLS[name], targets)


def completeness(launched: set[str]) -> list[str]:
    """Where KERNELS, the sources and what the calls launch do not agree."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(PACKAGE.glob("*.py"))]
    defined = {name for source in sources for name in DEFINITION.findall(source)}
    said = [f"{name}: no row of kernel_calls.py speaks of it" for name in defined - KERNELS.keys()]
    said += [f"kernel_calls.py: {name} speaks of no kernel" for name in KERNELS.keys() - defined]
    said += [f"{name}: launched by no call of kernel_calls.py" for name in defined - launched]
    return sorted(said)


def report(compiled: list[offline.Compiled], every: bool) -> None:
    """The most registers of each kernel for each target, and its tensor-core instructions."""
    groups: dict[tuple[str, str], list[offline.Compiled]] = defaultdict(list)
    for one in sorted(compiled, key=lambda one: (one.kernel, len(one.target), one.target)):
        groups[one.kernel, one.target].append(one)
    for (kernel, target), ones in groups.items():
        most = max(one.code.registers for one in ones)
        products = sorted({name for one in ones for name in tensor_instructions(one)})
        print(f"{kernel:42} {target:7}{len(ones):3} x {most:4} registers  {' '.join(products)}")
        for one in ones if every else ():
            counts = " ".join(f"{n} {name}" for name, n in tensor_instructions(one).items())
            print(f"    {one.code.registers:3} registers  {one.launch}  {counts}")


def tensor_instructions(one: offline.Compiled) -> dict[str, int]:
    found = one.code.instructions.items()
    return {name: n for name, n in found if re.match(r"H[G]?MMA|UTC\w*MMA", name)}


if __name__ == "__main__":
    sys.exit(main())
