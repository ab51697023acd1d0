"""The rows of one case on the terminal, in the order of the provider table whatever their speed.

On a GPU each row has a time per call and one on the GPU alone. The last column is the row's time
divided by ours: below 1, the row is faster than we are.
"""

from __future__ import annotations

from bench.shown.text import (
    WIDTH,
    Column,
    Result,
    case_title,
    heading,
    line,
    per_second,
    percent,
    seconds,
    times,
    wrapped,
)

WORTH_SHOWING_S = 0.1  # of a first call


def case_lines(case: Result) -> list[str]:
    gpu, bound = "ratio_graph" in case, case["bound"]
    names = _names(gpu)
    columns = [*names, *_figures(case, gpu)]
    lines = [
        "",
        f"{case_title(case)}    limit {seconds(bound['seconds'])} = {bound['text']}",
        heading(columns),
    ]
    for row in case["rows"]:
        if "median_s" not in row:
            lines.append(f"{line(names, row)}  {row['status'].upper()}: {row['reason']}"[:WIDTH])
            continue
        lines.append(line(columns, row))
        if row["reason"]:
            lines.append(f"    note: {row['reason']}"[:WIDTH])
    if gpu:
        lines += first_call_lines(case)
        if case["hurried"]:
            lines.append("    max-autotune left out for want of time")
    return lines


def first_call_lines(case: Result) -> list[str]:
    """What making a row ready and its first results took, where that is long enough to matter.

    Triton compiles a kernel for new dtypes and strides and tunes it for new sizes; both are kept on
    disk, so only a run that begins with an empty TRITON_CACHE_DIR shows the whole cost.
    """
    long = [
        f"{row['provider']} {seconds(row['first_s'])}"
        for row in case["rows"]
        if row.get("first_s", 0.0) >= WORTH_SHOWING_S
    ]
    text = "    first call, with all that it compiles and tunes: "
    return wrapped(text + ", ".join(long)) if long else []


def _names(gpu: bool) -> list[Column]:
    provider = Column("provider", "<44" if gpu else "<33", lambda r: r["provider"])
    return [provider] if gpu else [provider, Column("threads", ">8", lambda r: str(r["threads"]))]


def _figures(case: Result, gpu: bool) -> list[Column]:
    ours: Result = next((r for r in case["rows"] if r["provider"] == case["ours"]), {})

    def ratio(row: Result) -> float | None:
        return row["median_s"] / ours["median_s"] if "median_s" in ours else None

    if case["suite"] == "training_step":
        special = [
            Column("steps/s", ">12" if gpu else ">9", lambda r: per_second(1 / r["median_s"])),
            Column("of peak", ">9", lambda r: percent(r.get("fraction_of_peak"))),
        ]
    elif gpu:
        special = [
            Column("on the GPU", ">12", _device_time),
            Column("of limit", ">9", lambda r: percent(r.get("device_fraction_of_limit"))),
        ]
    else:
        special = [Column("of limit", ">18", lambda r: percent(r["fraction_of_limit"]))]
    return [
        Column("per call" if gpu else "median", ">12", lambda r: seconds(r["median_s"])),
        Column("quartiles", ">24" if gpu else ">26",
               lambda r: f"{seconds(r['q1_s'])} – {seconds(r['q3_s'])}"),
        Column("samples", ">8" if gpu else ">9", lambda r: str(r["samples"])),
        *special,
        Column("÷ ours", ">8" if gpu else ">10", lambda r: times(ratio(r))),
    ]  # fmt: skip


def _device_time(row: Result) -> str:
    """Time on the GPU; ~ marks samples in which the GPU had to wait for launches."""
    return ("~" if row.get("device_exposed") else "") + seconds(row.get("device_s"))
