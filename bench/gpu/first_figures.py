"""The headline figures of a GPU in two minutes: nothing is compiled, nothing is tuned.

    python -m bench.gpu.first_figures [--out FILE] [--seconds S]

First the limits of the GPU, then `train_steps` for 1 and for 132 of the lecture's models in
float32 and by TF32, then the three ops: cases of the benchmark, checked and timed as there, with
stock only eager and in a CUDA graph, and ours only on the backend cuda. FILE gets a result in the
benchmark's format after each case. No case begins after S seconds. Exit status 1 where a kernel
gave wrong numbers or broke, 3 where cases were left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import run
from bench.core.case import Case, Cost, Settings
from bench.core.files import keep_data, show
from bench.core.providers import Contest
from bench.cuda import training as cuda_training
from bench.cuda.gpu import find_gpu
from bench.cuda.providers import GRAPH, OURS
from bench.gpu.card import clocks
from bench.shown.figures import reached, row_of
from bench.shown.header import limit_lines
from bench.shown.text import case_title, per_second, percent, seconds, times
from bench.suites import Suite, cuda_suites

BUDGET_S, MIN_SAMPLE_S = 0.6, 2e-3  # of timing, per case
MODELS = cuda_training.RUN_CASES  # 1 and 132 of them, both precisions
# Providers of the benchmark that need no compiler. Of one model stock has its best eager loop too.
STOCK = ("eager", "lecture loop", "batches by chunk", "batched products")
OWN = (OURS, "run", "engine run")


def figures(suites: Sequence[Suite]) -> list[tuple[Suite, Case]]:
    """The cases: `train_steps` first, then the ops."""
    found = [
        (replace(suite, contest=partial(without_compiling, suite)), case)
        for suite in suites
        for case in suite.cases
        if case in MODELS or suite.name != run.TRAINING
    ]
    return run.training_first(found)


def without_compiling(suite: Suite, case: Case, cost: Cost, settings: Settings) -> Contest:
    contest = suite.contest(case, cost, settings)
    wanted = {name + ending for name in (*STOCK, *OWN) for ending in ("", GRAPH)}
    return replace(contest, providers=[p for p in contest.providers if p.name in wanted])


def line(case: dict[str, Any]) -> str:
    """A case in one line: the time of each row, on the GPU alone in brackets, and the ratios."""
    rows = []
    for row in case["rows"]:
        if "median_s" not in row:
            rows.append(f"{row['provider']} {row['status'].upper()}: {row['reason']}")
            continue
        alone = f" ({seconds(row['device_s'])})" if "device_s" in row else ""
        rows.append(f"{row['provider']} {seconds(row['median_s'])}{alone}")
    ratios = f"{times(case['ratio'])}, graph {times(case['ratio_graph'])}"
    last = f"{percent(reached(case)[0])} of limit"
    if case["suite"] == run.TRAINING:
        ours = row_of(case, "ours")
        last = f"{per_second(1 / ours['median_s'])} steps/s" if "median_s" in ours else "–"
    return f"• {case_title(case)}: {'; '.join(rows)}: {ratios}, {last}"


@dataclass
class Progress:
    """Keeps the result after each case, and prints what is new in it."""

    path: Path | None
    printed: list[str] = field(default_factory=list)

    def __call__(self, result: dict[str, Any]) -> None:
        if self.path:
            keep_data(result, self.path)
        lines = [f"• {text.strip()}" for text in limit_lines(result["limits"])]
        lines += [line(case) for case in result["cases"]]
        show(lines[len(self.printed) :])
        self.printed = lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The headline figures of a GPU in two minutes.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures as JSON")
    parser.add_argument("--seconds", type=float, default=120, help="begin no case after this")
    options = parser.parse_args(arguments)
    gpu = find_gpu("bench.gpu.first_figures")
    # `quick`: the limits are measured once, and for a short time
    budgets = {"budget_s": BUDGET_S, "min_sample_s": MIN_SAMPLE_S}
    settings = Settings(1, quick=True, compile=False, device="cuda", **budgets)
    progress = Progress(options.out)
    with run.ended_by_sigterm():
        cases = figures(cuda_suites(gpu))
        result = run.run(cases, settings, gpu=gpu, seconds=options.seconds, save=progress)
    progress(result)
    show([f"• clocks at the end: {clocks()}"])
    refused = run.broken(result)
    show([f"• REFUSED {text}" for text in refused])
    show([f"• not run: {name}: {why}" for name, why in result["not_run"].items()])
    return 1 if refused else 0 if result["complete"] else 3


if __name__ == "__main__":
    sys.exit(main())
