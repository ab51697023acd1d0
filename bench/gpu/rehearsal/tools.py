"""Stand-ins for the programs that need a GPU: they print what the real ones would print."""

from __future__ import annotations

import os
from pathlib import Path

SMI = """#!/bin/sh
case "$*" in
  *driver_version*) echo "580.00, 1980 MHz, 3201 MHz, 700.00 W" ;;
  *clocks.sm*) echo "345 MHz, 1980 MHz, 3201 MHz, 3201 MHz, 700.00 W, Disabled" ;;
  *compute_cap*) echo "9.0" ;;
  *) echo "| NVIDIA-SMI 580.00   Driver Version: 580.00   CUDA Version: 13.0 |" ;;
esac
"""

# Both run the program that they are given: all that follows the first word that is no option nor
# the value of one, which is where Python stands.
RUNS = """#!/bin/bash
[ "$1" = --version ] && { echo "Version 0 (a stand-in)"; exit 0; }
[ "$1" = --help ] && { echo "  --kernel-name arg  as the real one says"; exit 0; }
asked=("$@")
while [ $# -gt 0 ] && [[ "$1" != *python* || "$1" == --* ]]; do shift; done
"$@" || exit
"""
SANITIZER = (
    RUNS
    + """
case "${asked[*]}" in
  *racecheck*) echo "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)" ;;
  *) echo "========= ERROR SUMMARY: 0 errors" ;;
esac
"""
)
NCU = (
    RUNS
    + """
while [ "${asked[0]}" != --metrics ]; do asked=("${asked[@]:1}"); done
names='"ID","Kernel Name"' units='"",""' row='"0","train_steps_narrow_kernel"'
IFS=, read -ra metrics <<<"${asked[1]}"
for metric in "${metrics[@]}"; do names+=",\\"$metric\\"" units+=',"%"' row+=',"50"'; done
printf '==PROF== Connected\\n%s\\n%s\\n%s\\n' "$names" "$units" "$row"
"""
)
TOOLS = {"nvidia-smi": SMI, "compute-sanitizer": SANITIZER, "ncu": NCU}


def install(folder: Path) -> None:
    """Puts them before everything else on PATH."""
    folder.mkdir(parents=True)
    for name, text in TOOLS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
