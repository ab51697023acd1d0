"""Checks the machine code of a built ``_cuda.so``:
``python tests/cuda/machine_code/check.py _cuda.so``.

Against budget.json (``--write`` writes it anew) and against the rules of sass_lint.py.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import budget
import cubin
import sass_lint
from claims import CLAIMS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("--nvcc", default="nvcc", help="the compiler that made the library")
    parser.add_argument("--write", action="store_true", help="make its figures the budget")
    options = parser.parse_args()
    kernels = cubin.read(options.library)
    if not kernels:
        print(f"{options.library} holds no kernel")
        return 1
    nvcc = version(options.nvcc)
    if options.write:
        budget.write(kernels, nvcc)
        print(f"{budget.PATH}: {len(kernels)} kernels")
    problems = budget.check(kernels, nvcc) + sass_lint.check(kernels, CLAIMS)
    for line in [*budget.notes(kernels, nvcc), *problems]:
        print(line)
    targets = sorted({target for codes in kernels.values() for target in codes}, key=len)
    print(f"{len(kernels)} kernels for {', '.join(targets)}: {len(problems)} problems")
    if any("budget" in line for line in problems):
        print("If this is meant: make cuda-budget, and commit {budget.PATH.name}")
    return 1 if problems else 0


def version(nvcc: str) -> str:
    """ "13.0" of nvcc 13.0.88."""
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", said)
    return found[1] if found else said


if __name__ == "__main__":
    sys.exit(main())
