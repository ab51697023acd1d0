"""Measures one case: prepares and checks its providers, times them in turns, computes ratios."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench import keep_pages
from bench.core.accuracy import Check
from bench.core.case import Case, Cost, OpTable, Settings, Unavailable
from bench.core.limits import MeasuredLimits
from bench.core.process import ProcessError
from bench.core.providers import (
    MLPKERN,
    STOCK_KEEPS_PAGES,
    Contest,
    Prepared,
    Provider,
)
from bench.core.ratios import Row, graph_ratios, ratios
from bench.core.timer import (
    MIN_ROUNDS,
    Contestant,
    LocalContestant,
    RemoteContestant,
    Timing,
    interleave,
)
from bench.cuda.device_timer import DeviceContestant
from bench.suites import Suite

SLOW_ROUNDS = 3
QUICK_LIMIT_S = 10.0  # of timing a case, on a loaded machine

# The backend in plain torch is checked again where its first results are wrong. In one process of
# some hundred they were off by 1e-5, as large as the errors of MKL's exp in its mode "enhanced
# performance", which torch does not ask for; the cause is not proven. The row says so.
PLAIN_TORCH = "reference"


@dataclass
class _Entry:
    """A row of the result and, where it may be timed, its contestants."""

    row: Row
    contestant: Contestant | None = None
    units: int = 1
    device: DeviceContestant | None = None  # the same call without the time of launching


def run_case(
    suite: Suite, case: Case, settings: Settings, limits: MeasuredLimits
) -> dict[str, Any]:
    """Measures one case; the dictionary goes into the JSON file as it is."""
    torch._dynamo.reset()
    cost = suite.cost(case)
    contest = suite.contest(case, cost, settings)
    gpu = contest.gpu
    with contextlib.ExitStack() as stack:
        entries = [_prepare(provider, contest, stack) for provider in contest.providers]
        del contest  # the float64 numbers: hundreds of megabytes for the largest cases
        if cost.large and suite.table:
            # where torch.compile does not work, or with --quick, where starting it once more would
            # take as long as all else, only the eager row
            compiles = any(e.contestant and e.contestant.name == "compile" for e in entries)
            compiles = compiles and not settings.quick
            entries += _keep_pages_entries(suite.table, case, settings, stack, compiles)
        # a provider that compiles inside a sample is an error of the benchmark, not a result
        stack.enter_context(torch._dynamo.config.patch(error_on_recompile=True))
        both = [c for e in entries for c in (e.contestant, e.device)]
        timings = interleave(
            [c for c in both if c is not None],
            budget_s=settings.budget_s,
            min_sample_s=settings.min_sample_s,
            min_rounds=SLOW_ROUNDS if case.slow or settings.quick else MIN_ROUNDS,
            limit_s=QUICK_LIMIT_S if settings.quick else math.inf,
            warm=not case.slow,
        )
    for entry in entries:
        if entry.contestant is not None:
            entry.row.update(_times(timings[entry.contestant.name], entry.units))
        if entry.device is not None:
            entry.row["device_s"] = timings[entry.device.name].median
            entry.row["device_exposed"] = entry.device.mostly_exposed
    rows = [entry.row for entry in entries]
    result = {
        "suite": suite.name,
        "op": case.op,
        "shape": case.shape,
        "dtype": case.dtype,
        "sizes": dict(case.sizes),
        "cost": asdict(cost),
        "rows": rows,
        **ratios(rows, suite.ours, suite.baseline),
    }
    if gpu is not None:
        result |= graph_ratios(rows, suite.ours_graph, suite.baseline)
    rate(result, limits)
    return result


def rate(result: dict[str, Any], limits: MeasuredLimits) -> None:
    """Writes into a case's result what bounds it and which fraction of that each row reaches.

    `fraction_of_peak` is that of the flop rate of the cores that the row works on, on a GPU of all.
    """
    cost = Cost(**result["cost"])
    bound = limits.bound(result["dtype"], cost)
    result["bound"] = asdict(bound)
    for row in result["rows"]:
        if "median_s" in row:
            row["fraction_of_limit"] = bound.seconds / row["median_s"]
            peak = limits.peak_of(result["dtype"], row["cores"])
            if peak is not None and cost.flops:
                row["fraction_of_peak"] = cost.flops / row["median_s"] / peak
        if "device_s" in row:
            row["device_fraction_of_limit"] = bound.seconds / row["device_s"]


def _prepare(provider: Provider, contest: Contest, stack: contextlib.ExitStack) -> _Entry:
    """Builds a provider and checks its numbers; only a correct one gets a contestant."""
    row: Row = {
        "provider": provider.name,
        "kind": provider.kind,
        "backend": provider.backend,
        "threads": provider.threads,
        "cores": provider.cores_used,
        "status": "ok",
        "reason": "",
    }
    entry = _Entry(row)
    if reason := _why_unavailable(provider):
        row.update(status="unavailable", reason=reason)
        return entry
    began = time.perf_counter()
    try:
        with provider.switch():
            prepared = provider.make()
            if prepared.close is not None:
                stack.callback(prepared.close)
            first = _results(prepared)
            if contest.gpu:  # there some compile and tune in their first call, others do not
                contest.gpu.synchronize()
                row["first_s"] = time.perf_counter() - began
            checks = _check(prepared, contest, first)
            del first
            if provider.backend == PLAIN_TORCH and not all(c.passed for c in checks):
                row["reason"] = "first results: " + "; ".join(_wrong(checks))
                checks = _check(prepared, contest, _results(prepared))
    except Unavailable as error:
        row.update(status="unavailable", reason=str(error))
        return entry
    except Exception as error:  # one provider that breaks must not hide the numbers of the others
        first_line = (str(error).strip() or "no message").splitlines()[0]
        row.update(status="failed", reason=f"{type(error).__name__}: {first_line}")
        return entry
    row["accuracy"] = [check.as_dict() for check in checks]
    wrong = _wrong(checks)
    if wrong and provider.kind == MLPKERN:
        row.update(status="wrong", reason="; ".join(wrong))
        return entry
    if wrong:  # stock stays in the contest: leaving it out could only flatter us
        row["reason"] = "less accurate than eager: " + "; ".join(wrong)
    finish = contest.gpu.synchronize if contest.gpu else None
    if prepared.sample is not None:
        entry.contestant = RemoteContestant(provider.name, prepared.sample)
    else:
        entry.contestant = LocalContestant(provider.name, prepared.call, provider.switch, finish)
    entry.units = prepared.units
    if contest.gpu and prepared.units == 1:  # the launches of many steps would not fit the stream
        name = f"{provider.name}, device"
        entry.device = DeviceContestant(name, prepared.call, provider.switch, contest.gpu)
    return entry


def _wrong(checks: list[Check]) -> list[str]:
    return [check.message() for check in checks if not check.passed]


def _results(prepared: Prepared) -> tuple[torch.Tensor, ...]:
    with torch.enable_grad():
        return prepared.results()


def _check(prepared: Prepared, contest: Contest, first: tuple[torch.Tensor, ...]) -> list[Check]:
    """Checks the first results after the second call: it may not write into their memory."""
    second = _results(prepared)
    checks = contest.yardstick.check([t.detach() for t in first])
    del second
    return checks


def _why_unavailable(provider: Provider) -> str:
    if not provider.backend:
        return ""
    import mlpkern

    backend = mlpkern.backends()[provider.backend]
    return "" if backend.available else backend.reason


def _keep_pages_entries(
    table: OpTable, case: Case, settings: Settings, stack: contextlib.ExitStack, compile: bool
) -> list[_Entry]:
    def row(name: str, **more: str) -> Row:
        start = {"provider": name, "kind": STOCK_KEEPS_PAGES, "backend": ""}
        threads = settings.threads
        return {**start, "threads": threads, "cores": threads, "status": "ok", "reason": "", **more}

    try:
        worker = keep_pages.Worker(table, case, settings.threads, compile=compile)
    except ProcessError as error:
        names = keep_pages.modes(compile)
        return [_Entry(row(name, status="failed", reason=str(error))) for name in names]
    stack.callback(worker.close)
    return [_Entry(row(c.name), c) for c in worker.contestants()]


def _times(timing: Timing, units: int) -> Row:
    return {
        "median_s": timing.median / units,
        "q1_s": timing.q1 / units,
        "q3_s": timing.q3 / units,
        "minimum_s": timing.minimum / units,
        "samples": len(timing.samples),
        "calls_per_sample": timing.repeats * units,
    }
