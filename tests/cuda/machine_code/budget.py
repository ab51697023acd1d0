"""The most that each kernel may use, in ``budget.json``: registers, memory, size of the code.

More is an error until the file is written again on purpose (``make cuda-budget``): a few registers
can halve the number of blocks on a multiprocessor, and a reference into shared memory, where a copy
was meant, is read again after every store. Figures that depend on the version of nvcc are compared
only under the version with which the budget was made.
"""

from __future__ import annotations

import json
from pathlib import Path

from cubin import Kernels

PATH = Path(__file__).with_name("budget.json")
FIGURES = ("registers", "stack", "shared", "length", "shared_loads")
OF_THE_COMPILER = ("registers", "length", "shared_loads")


def write(kernels: Kernels, nvcc: str, path: Path = PATH) -> None:
    """One line per kernel; a figure that is the same for all targets is written once."""
    targets = sorted({name for codes in kernels.values() for name in codes}, key=_number)
    rows = []
    for kernel, codes in kernels.items():
        row = {}
        for figure in FIGURES:
            figures = [getattr(codes[target], figure) for target in targets]
            row[figure] = figures if len(set(figures)) > 1 else figures[0]
        rows.append(f"    {json.dumps(kernel)}: {json.dumps(row)}")
    head = f'  "nvcc": {json.dumps(nvcc)},\n  "targets": {json.dumps(targets)},\n'
    path.write_text("{\n" + head + '  "kernels": {\n' + ",\n".join(rows) + "\n  }\n}\n")


def check(kernels: Kernels, nvcc: str, path: Path = PATH) -> list[str]:
    """The figures above the budget and the kernels missing on one side, a line each."""
    budget = json.loads(path.read_text())
    compared = [name for name in FIGURES if name not in OF_THE_COMPILER or budget["nvcc"] == nvcc]
    problems = []
    for kernel, codes in kernels.items():
        if kernel not in budget["kernels"]:
            problems.append(f"{kernel}: not in {path.name}")
            continue
        if set(codes) != set(budget["targets"]):
            missing = sorted(set(codes) ^ set(budget["targets"]))
            problems.append(f"{kernel}: compiled or budgeted, but not both, for {missing}")
            continue
        for figure in compared:
            allowed = budget["kernels"][kernel][figure]
            for place, target in enumerate(budget["targets"]):
                limit = allowed[place] if isinstance(allowed, list) else allowed
                used = getattr(codes[target], figure)
                if used > limit:
                    problems.append(f"{kernel} on {target}: {figure} {used}, budget {limit}")
    gone = sorted(set(budget["kernels"]) - set(kernels))
    return problems + [f"{kernel}: in {path.name}, but not in the library" for kernel in gone]


def notes(kernels: Kernels, nvcc: str, path: Path = PATH) -> list[str]:
    """Remarks that are no errors."""
    budget = json.loads(path.read_text())
    if budget["nvcc"] != nvcc:
        return [f"code not compared: the budget is of nvcc {budget['nvcc']}, this is {nvcc}"]
    return []


def _number(target: str) -> int:
    return int("".join(c for c in target if c.isdigit()))
