"""The benchmark: mlpkern against stock PyTorch, checked first, timed in turns, limits beside it.

    python bench/run.py                  every case, a quarter of an hour on two cores
    python bench/run.py --quick          at most two minutes, what does not fit is left out
    python bench/run.py --device cuda    the cases of a GPU

docs/benchmarks/method.md says how it measures. Exit status: 0, or 1 when a kernel gave wrong
numbers or broke (its row says so and has no time), or 2 for a wrong command line,
3 when some cases were not run (memory, --seconds), 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


from bench.core import limits, machine
from bench.core.case import Case, Settings, Unavailable
from bench.core.device import Device, answers, first_line
from bench.core.files import keep_data, show
from bench.core.jax_process import JaxProcess
from bench.core.load import Load
from bench.core.providers import MLPKERN
from bench.cuda import limits as cuda_limits
from bench.cuda.gpu import find_gpu
from bench.cuda.population_run import train_population
from bench.options import chosen, parse
from bench.result_files import keep
from bench.runner import rate, run_case
from bench.shown.cases import case_lines
from bench.shown.header import header_lines, limit_lines
from bench.shown.ladder import ladder_lines
from bench.shown.summary import summary_lines
from bench.shown.text import case_title
from bench.shown.training import population_lines, training_lines
from bench.suites import Suite, cuda_suites
from bench.training.names_run import Plan, train_all

TRAINING = "training_step"  # the suites of this name
QUICK_SECONDS = 95.0  # no case begins later; all of it then ends in about two minutes
QUICK = {"budget_s": 1.0, "min_sample_s": 1e-3}
CUDA = {"budget_s": 2.5, "min_sample_s": 5e-3}
CUDA_QUICK_LIMITS = {"width": 4096, "budget_s": 0.1}
CUDA_QUICK = {"budget_s": 0.5, "min_sample_s": 2e-3}


def training_first(cases: list[tuple[Suite, Case]]) -> list[tuple[Suite, Case]]:
    """The order of importance: training, which is what the package is for, then a case of every
    suite, then the others. Tuning the ops takes minutes on a GPU, and --quick may run out of time.
    """
    seen: set[str] = set()
    ranks = []
    for suite, _ in cases:
        ranks.append((suite.name != TRAINING, suite.name in seen))
        seen.add(suite.name)
    order = sorted(range(len(cases)), key=ranks.__getitem__)
    return [cases[i] for i in order]


def run(
    cases: Iterable[tuple[Suite, Case]],
    settings: Settings,
    plan: Plan | None = None,
    *,
    gpu: Device | None = None,
    seconds: float = math.inf,
    save: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Measures everything, printing as it goes; Ctrl-C ends it early with what there is.

    `plan` is the training at the end, on a GPU that of a population after the last training case;
    None for none. After `seconds` no further case is begun, and after half of them none is
    autotuned. `save` gets what there is after each case.
    """
    started = time.monotonic()
    elapsed = lambda: time.monotonic() - started  # noqa: E731
    result: dict[str, Any] = {
        "schema": 1,
        "device": settings.device,
        "complete": False,
        "date": machine.now(),
        "commit": machine.commit(),
        "command": machine.command(),
        "machine": machine.describe(settings.threads) | ({"gpu": gpu.describe()} if gpu else {}),
        "versions": machine.versions(settings.device),
        "settings": asdict(settings),
        "load": None,
        "limits": None,
        "cases": [],
        "errors": [],
        "not_run": {},  # case -> why it was not
        "training": None,
        "population": None,
    }

    def measure() -> Any:
        if gpu is None:
            return limits.measure(settings.threads, quick=settings.quick)
        return cuda_limits.measure(gpu, **(CUDA_QUICK_LIMITS if settings.quick else {}))

    def populate() -> None:
        """Once, while there is time."""
        if plan and gpu and not result["population"] and elapsed() < seconds and answers(gpu):
            result["population"] = _told(lambda: train_population(plan, gpu.device))
            show(population_lines(result["population"]))

    load = Load()
    result["load"] = load.told()
    show(header_lines(result))
    measured = measure()
    result["limits"] = asdict(measured)
    show(limit_lines(result["limits"]))
    try:
        for suite, case in cases:
            if result["cases"] and suite.name != TRAINING:
                populate()
            load.sample()
            if elapsed() > seconds:
                result["not_run"][case.name] = f"it would begin after {seconds:.0f} seconds"
                continue
            used = replace(settings, hurry=elapsed() > seconds / 2)
            try:
                measured_case = run_case(suite, case, used, measured)
                result["cases"].append(measured_case | {"hurried": used.hurry})
            except Unavailable as error:
                result["not_run"][case.name] = str(error)
                show(["", f"{case.name}: not run: {error}"])
                continue
            except Exception as error:  # one case must not lose the others
                traceback.print_exc()
                message = first_line(error) if gpu else str(error)
                result["errors"].append(f"{case.name}: {type(error).__name__}: {message}")
                if gpu is not None and not answers(gpu):
                    result["errors"].append("the GPU takes no more work after that error")
                    break
                continue
            finally:
                if gpu is not None and answers(gpu):
                    gpu.release()
                save(result)
            show(case_lines(result["cases"][-1]))
        # the machine may have been busy at the start: take the better figure
        if not settings.quick and elapsed() < seconds and (gpu is None or answers(gpu)):
            measured = measured.best_of(measure())
            result["limits"] = asdict(measured)
            for case_result in result["cases"]:
                rate(case_result, measured)
        populate()
        load.sample()
        result["load"] = load.told()
        show(summary_lines(result) + ladder_lines(result))
        if plan is not None and gpu is None and elapsed() < seconds:
            result["training"] = _told(lambda: train_all(plan))
            show(training_lines(result["training"]))
        result["complete"] = not result["not_run"]
    except KeyboardInterrupt:
        show(summary_lines(result))
        show(["", "interrupted: what was measured so far is kept, marked as not complete"])
    finally:
        JaxProcess.close_all()
    return result


def _told(train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a training, or why there is none: a failure must not lose the cases."""
    try:
        return train()
    except Exception as error:
        traceback.print_exc()
        return {"reason": f"{type(error).__name__}: {first_line(error)}"}


def broken(result: dict[str, Any]) -> list[str]:
    """One line for each refused row of mlpkern, and for each case that could not be run.

    A stock provider that fails (torch.compile without a compiler) shows in the table only.
    """
    return result["errors"] + [
        f"{case_title(case)}, {row['provider']}: {row['status'].upper()}: {row['reason']}"
        for case in result["cases"]
        for row in case["rows"]
        if row["kind"] == MLPKERN and row["status"] in ("wrong", "failed")
    ]


def budgets(options: argparse.Namespace) -> dict[str, float]:
    if options.device == "cuda":
        return CUDA_QUICK if options.quick else CUDA
    return QUICK if options.quick else {}


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, which `timeout` sends, ends a run like Ctrl-C: what was measured is kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    gpu = None
    if options.device == "cuda":
        gpu = find_gpu("bench/run.py: --device cuda")
    cases = chosen(options, cuda_suites(gpu)) if gpu else chosen(options)
    if gpu or options.quick:
        cases = training_first(cases)
    if not cases:
        print("bench/run.py: no case matches the selection", file=sys.stderr)
        return 2
    settings = Settings(
        options.threads,
        options.quick,
        compile=not options.no_compile,
        jax=not options.no_jax,
        device=options.device,
        **budgets(options),
    )
    trains = any(suite.name == TRAINING for suite, _ in cases)
    plan = Plan(options.quick or bool(options.case), options.file, options.reach)
    seconds = options.seconds
    if seconds is None:  # a named selection is run whole
        seconds = QUICK_SECONDS if options.quick and not (gpu or options.case) else math.inf
    with ended_by_sigterm():
        result = run(
            cases,
            settings,
            plan if trains else None,
            gpu=gpu,
            seconds=seconds,
            save=partial(keep_data, path=options.out / "result.json"),
        )
    refused = broken(result)
    # a run with a refused kernel is shown and kept, but not recorded
    keep(result, options.out, options.record if result["complete"] and not refused else None)
    for line in refused:
        print(f"REFUSED  {line}", file=sys.stderr)
    if result["not_run"] and not refused:
        print(f"bench/run.py: not run: {', '.join(result['not_run'])}", file=sys.stderr)
        return 0 if options.quick and options.seconds is None else 3
    if not result["complete"]:
        return 130
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
