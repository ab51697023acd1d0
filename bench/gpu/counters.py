"""Hardware counters of six kernels, by ncu: what each waits for.

    python -m bench.gpu.counters [--out FILE]

Where ncu is missing or may not read the counters, that is what is printed, and it is no failure.
The kernels are those that most of the time goes to: a training of one of the lecture's models, the
loss of many and of few classes, the gradient of an embedding of a small and of a large table, a
layer by TF32.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.core.case import OpTable, forward_backward
from bench.core.files import keep_data
from bench.cuda import training as cuda_training
from bench.cuda.gpu import Gpu, find_gpu
from bench.cuda.providers import OURS, with_cuda_backend
from bench.cuda.runs import DeviceModels
from bench.ops import cross_entropy, embedding_gather, linear_tanh

KERNELS = (
    "train_steps_narrow_kernel",
    "cross_entropy_rows_backward_kernel",
    "cross_entropy_tile_backward_kernel",
    "embedding_gather_backward_small_kernel",
    "embedding_gather_backward_segments_kernel",
    "linear_tanh_product_kernel",
)
METRICS = {  # of ncu -> how it is called here
    "gpu__time_duration.sum": "time",
    "launch__registers_per_thread": "registers",
    "launch__occupancy_limit_shared_mem": "blocks by shared memory",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps %",
    "sm__inst_issued.avg.pct_of_peak_sustained_active": "issue %",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum.pct_of_peak_sustained_elapsed": "shared %",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum": "bank conflicts",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active": "tensor %",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "DRAM %",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed": "L2 %",
}
SURE = tuple(METRICS)[:2]  # tried where this ncu does not know one of the others
STEPS = 200


def program(gpu: Gpu) -> None:
    """Launches each of the kernels, the ops at their first, largest and TF32 cases."""
    case = cuda_training.RUN_CASES[0]
    models = DeviceModels(case, gpu.device)
    with with_cuda_backend(OURS, case.dtype):
        models.take(models.draw(STEPS))
    chosen: list[tuple[OpTable, int]] = [
        (cross_entropy.TABLE, 0),
        (cross_entropy.TABLE, 2),
        (embedding_gather.TABLE, 0),
        (embedding_gather.TABLE, 2),
        (linear_tanh.TABLE, 2),
    ]
    for table, number in chosen:
        chosen_case = table.cuda_cases[number]
        problem = table.problem(chosen_case, gpu.device)
        with with_cuda_backend(OURS, chosen_case.dtype):
            forward_backward(table.fused, problem)()
    gpu.synchronize()


def command(ncu: str, metrics: Iterable[str]) -> list[str]:
    """What counts: the program is this one again, called as it was (in a rehearsal or not)."""
    return [
        *(ncu, "--clock-control", "none", "--csv", "--page", "raw", "--target-processes", "all"),
        *(
            "--print-kernel-base",
            "function",
            "--kernel-name-base",
            "function",
            "--kernel-name",
            f"regex:^({'|'.join(KERNELS)})$",
        ),
        *("--metrics", ",".join(metrics), sys.executable, *sys.orig_argv[1:], "--program"),
    ]


def parse(text: str) -> list[dict[str, str]]:
    """The rows of ncu's table, a kernel each, with the names of METRICS. Its first row is units."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    if not rows:
        return []
    units, found = rows[0], []
    for row in rows[1:]:
        counted = {"kernel": row["Kernel Name"]}
        for metric, name in METRICS.items():
            if row.get(metric):
                unit = units.get(metric) or ""
                counted[name] = row[metric] + ("" if unit in ("", "%") else f" {unit}")
        found.append(counted)
    return found


def refusal(text: str) -> str:
    """Why ncu counted nothing, in its own words."""
    said = [line.split("== ")[-1] for line in text.splitlines() if "ERR" in line.upper()]
    return next(iter(said), "it printed no table")


def lines(rows: Iterable[dict[str, str]]) -> list[str]:
    return [
        f"• {row['kernel']}: " + ", ".join(f"{k} {v}" for k, v in row.items() if k != "kernel")
        for row in rows
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Hardware counters of six kernels, by ncu.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the counters as JSON")
    parser.add_argument("--program", action="store_true", help="only launch the kernels")
    options = parser.parse_args(arguments)
    if options.program:
        program(find_gpu("bench.gpu.counters"))
        return 0
    ncu = shutil.which("ncu")
    if ncu is None:
        print("• no counters: ncu is not installed")
        return 0
    for metrics in (METRICS, SURE):
        done = subprocess.run(command(ncu, metrics), capture_output=True, text=True)
        rows = parse(done.stdout)
        print(done.stdout[-4000:], done.stderr[-4000:])
        if rows:
            break
    result: dict[str, Any] = {"status": done.returncode, "kernels": rows}
    if not rows:
        result["reason"] = refusal(done.stdout + done.stderr)
        print(f"• no counters: ncu, status {done.returncode}: {result['reason']}")
    print("\n".join(lines(rows)))
    if options.out:
        keep_data(result, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
