"""Checks the kernels of a GPU: every op and every way to train, small, in under a minute.

    python -m bench.gpu.smoke [--backend cuda] [--out FILE]

Each line is one check: how many results, the largest error over the largest value, and how much is
allowed. The ops, forward and backward, are those of sanitizer_cases.py against plain torch in
float64, `train_steps` and `evaluate` against the reference backend in float64 on the CPU.
FILE gets the same as JSON after each check. Exit status 1 where one of them is wrong.

The limits tell a wrong kernel from rounding, and TF32 from float32; the tests have the sharp ones.
A step of AdamW depends on the sign of gradients near 0, so its limits are wider: with operands cut
to TF32, plain torch is off by 0.02 after these steps, under SGD by 0.0001.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import mlpkern
from bench.core.device import Device, answers, first_line
from bench.core.files import keep_data
from bench.cuda.gpu import find_gpu
from bench.cuda.providers import with_precision
from bench.gpu import sanitizer_cases
from bench.gpu.sanitizer_cases import Run, difference, results
from mlpkern.registry import has_op

OPS = {
    "float32": (torch.float32, 1e-4),
    "tf32": (torch.float32, 1e-2),
    "bfloat16": (torch.bfloat16, 6e-2),
}
# The kernels of train_steps: what `mlpkern.explain` says of each, and a model that it trains (one
# layer up to the sizes of the lecture; two layers).
WAYS = {
    "narrow": ("dealt out to warps", (27, 3, 10, (200,), 32)),
    "block": ("by the whole block", (40, 3, 12, (60, 50), 32)),
}
OPTIMIZERS: dict[str, tuple[dict[str, Any], float, dict[str, float]]] = {
    "SGD": ({}, 0.3, {"float32": 3e-5, "tf32": 3e-3}),
    "AdamW": ({"optimizer": "adamw", "weight_decay": 0.1}, 0.01, {"float32": 1e-3, "tf32": 1e-1}),
}
STEPS = 20
Found = tuple[int, float, str]  # results compared, the largest error, where it was
Check = tuple[str, float, Callable[[], Found]]  # a name, the allowed error, and what finds it


def checks(backend: str, device: str) -> Iterator[Check]:
    for precision, (dtype, allowed) in OPS.items():
        for op in ("embedding_gather", "linear_tanh", "cross_entropy"):
            if precision != "tf32" or op == "linear_tanh":  # the others have no products
                yield f"{op} {precision}", allowed, partial(op_errors, op, dtype, device)
    if not has_op(backend, "train_steps"):
        return
    for way, (said, sizes) in WAYS.items():
        for name, (options, rate, allowances) in OPTIMIZERS.items():
            run = Run(*sizes, options, STEPS, rate)
            for precision, allowed in allowances.items():
                find = partial(run_errors, run, said if backend == "cuda" else "", device)
                yield f"train_steps, evaluate {way} {name} {precision}", allowed, find


def op_errors(op: str, dtype: torch.dtype, device: str) -> Found:
    count, largest, where = 0, 0.0, ""
    for text, ours, stock, arguments in sanitizer_cases.cases(device):
        floats = next(a.dtype for a in arguments if a.is_floating_point())
        if text.split()[0] != op or floats != dtype:
            continue
        pairs = zip(
            results(ours, arguments, dtype), results(stock, arguments, torch.float64), strict=True
        )
        for mine, exact in pairs:
            count += 1
            error = difference(mine, exact)
            if not error <= largest:
                largest, where = error, text
    return count, largest, where


def run_errors(run: Run, said: str, device: str) -> Found:
    """The errors of a training, which `mlpkern.explain` must describe by the words `said`."""
    start, data, batches = run.tensors()
    params = mlpkern.MLPParams.from_tensors([t.to(device) for t in start])
    batches = batches.to(device)
    arguments = [params, *(t.to(device) for t in data), batches, run.rate]
    way = mlpkern.explain("train_steps", *arguments, **run.options)
    if said not in way:
        raise RuntimeError(f"expected the way {said!r}, got {way!r}")
    trained, evaluated = run.errors(device)
    return 2, max(trained, evaluated), "the training" if trained > evaluated else "the evaluation"


def smoke(backend: str, gpu: Device, out: Path | None) -> list[dict[str, Any]]:
    """All checks; each row says whether it passed, and why not."""
    rows: list[dict[str, Any]] = []
    for name, allowed, find in checks(backend, gpu.device):
        began = time.monotonic()
        row: dict[str, Any] = {"check": name, "allowed": allowed, "passed": False}
        precision = "tf32" if name.endswith("tf32") else "float32"
        torch.manual_seed(0)
        try:
            with with_precision(precision), mlpkern.use_backend(backend):
                count, largest, where = find()
                mlpkern.check_errors()
            row |= {"results": count, "error": repr(largest), "where": where}
            row["passed"] = count > 0 and largest <= allowed
            shown = f"{count:4} results, off by {largest:.1e} of {allowed:.0e}"
            shown += "" if row["passed"] else f" ({where})"
        except Exception as error:
            row["failed"] = shown = f"{type(error).__name__}: {first_line(error)}"
        row["seconds"] = round(time.monotonic() - began, 2)
        mark = "ok   " if row["passed"] else "WRONG"
        print(f"{mark} {name:47} {shown}, {row['seconds']:.1f} s", flush=True)
        rows.append(row)
        if out:
            keep_data({"backend": backend, "checks": rows}, out)
        if not answers(gpu):
            print("WRONG the GPU takes no more work after that", flush=True)
            break
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks the kernels of a GPU in a minute.")
    parser.add_argument("--backend", default="cuda", help="whose kernels (cuda)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the checks as JSON")
    options = parser.parse_args(arguments)
    gpu = find_gpu("bench.gpu.smoke")
    rows = smoke(options.backend, gpu, options.out)
    wrong = sum(not row["passed"] for row in rows)
    print(f"{len(rows)} checks on {options.backend}, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
