"""The stages of bench/gpu.sh: steps one after another, each within its time, the summary last.

A step that fails or runs out of time does not stop the others. result.json and log.txt are written
after each step, so an interrupted stage leaves the results of its finished steps. Only
the standard library is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from bench.core import machine
from bench.core.files import keep_data
from bench.gpu import prebuilt
from bench.gpu.rehearsal import tools as rehearsal_tools
from bench.gpu.steps import STAGES, STEPS
from bench.gpu.work import ROOT, OutOfTime, Work

OUT = ROOT / "bench" / "out" / "gpu"  # where nothing else is asked for
SUMMARY = 11_500  # characters: of a command's output often only the last 12,000 can be seen
WIDEST = 320  # a line of it
LEAST_S = 5  # with less time left a step is not started
RAN_OUT, INTERRUPTED = 124, 130  # statuses, as a shell has them


class Stage:
    """Steps, the files they leave in `folder`, and the lines that the summary shows of them."""

    def __init__(self, name: str, steps: list[str], seconds: float, out: Path, rehearsing: bool):
        self.name, self.steps, self.rehearsing = name, steps, rehearsing
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self.folder = out / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log.txt"
        self.log.write_text("")
        self.rows: list[dict[str, Any]] = []
        self.interrupted = False

    def run(self) -> bool:
        """Runs the steps; whether all succeeded."""
        for name in self.steps:
            self.rows.append(self.step(name))
            self.save()
            if self.interrupted:
                break
        return all(row["status"] == 0 for row in self.rows)

    def step(self, name: str) -> dict[str, Any]:
        step, began = STEPS[name], time.monotonic()
        limit = min(step.seconds, self.deadline - began)
        row: dict[str, Any] = {"step": name, "status": RAN_OUT, "seconds": 0.0, "told": []}
        if limit < LEAST_S:
            return row | {"note": "no time was left"}
        print(f"=== {name} (at most {limit:.0f} s)", flush=True)
        log = self.folder / f".{name}.txt"
        log.write_text("")
        work, note = Work(log, self.folder, began + limit, self.rehearsing), ""
        try:
            row["status"] = 0 if step.run(work) else 1
        except OutOfTime:
            note = f"ran out of its {limit:.0f} s"
        except KeyboardInterrupt:
            row["status"], note, self.interrupted = INTERRUPTED, "interrupted", True
            work.end()
        except Exception:
            row["status"] = 1
            work.say(traceback.format_exc())
        text = log.read_text(errors="replace")
        log.unlink()
        row |= {"seconds": round(time.monotonic() - began, 1), "note": note}
        row["told"] = [line[:WIDEST] for line in step.tells(text)]
        with self.log.open("a") as whole:
            print(f"=== {name}: status {row['status']}, {row['seconds']} s\n{text}", file=whole)
        print("\n".join([*fitting(row["told"], step.room), shown(row)]), flush=True)
        return row

    def save(self) -> None:
        result = {
            "stage": self.name,
            "date": machine.now(),
            "commit": machine.commit() or "unknown",
            "seconds": round(time.monotonic() - self.began, 1),
            "steps": self.rows,
        }
        keep_data(result, self.folder / "result.json")

    def summary(self) -> str:
        """The outcome of every step, in at most SUMMARY characters."""
        seconds = time.monotonic() - self.began
        lines = [f"=== {self.name}: {seconds:.0f} s, files in {self.folder}"]
        lines += [shown(row) for row in self.rows]
        room = SUMMARY - sum(len(line) + 1 for line in lines)
        told = {row["step"]: row["told"] for row in self.rows if row["told"]}
        for name, text in told.items():
            lines += [f"--- {name}", *fitting(text, STEPS[name].room * room // self.asked(told))]
        return "\n".join(lines)

    def asked(self, told: dict[str, Any]) -> int:
        """The characters that the steps ask for together, at least SUMMARY."""
        return max(SUMMARY, sum(STEPS[name].room + 20 for name in told))


def shown(row: dict[str, Any]) -> str:
    return (
        f"{row['step']:11} status {row['status']:<4}{row['seconds']:7.1f} s  {row.get('note', '')}"
    )


def fitting(lines: list[str], room: int) -> list[str]:
    """The first lines that fit into `room` characters, and the number of those left out."""
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 30 and len(kept) < len(lines) - 1:
            return [*kept, f"... {len(lines) - len(kept)} lines more in log.txt"]
        kept.append(line)
    return kept


def wanted(arguments: list[str]) -> list[tuple[str, float, list[str]]]:
    """The stages that the command line names: their names, seconds and steps."""
    stages, alone = [], []
    for name in arguments or list(STAGES):
        if name in STAGES:
            seconds, steps = STAGES[name]
            stages.append((f"stage{name}", float(seconds), list(steps)))
        elif name in STEPS:
            alone.append(name)
        else:
            known = f"stages {', '.join(STAGES)}; steps {', '.join(STEPS)}; prepare"
            print(f"bench/gpu.sh: no stage or step {name}; there are: {known}", file=sys.stderr)
            raise SystemExit(2)
    if alone:
        stages.append(("steps", float(sum(STEPS[name].seconds for name in alone)), alone))
    return stages


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["prepare"]:
        return prebuilt.main(arguments[1:])
    rehearsing = arguments[:1] == ["--rehearse"]
    stages = wanted(arguments[1:] if rehearsing else arguments)
    named = os.environ.get("OUT")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ["PATH"] += f"{os.pathsep}/usr/local/cuda/bin"
    os.environ["RECORD"] = "" if named else "1"
    with tempfile.TemporaryDirectory(prefix="mlpkern-gpu-") as temporary:
        if rehearsing:
            rehearsal_tools.install(Path(temporary) / "tools")
        out = Path(named) if named else Path(temporary) if rehearsing else OUT
        return run(stages, out.resolve(), rehearsing)


def run(stages: list[tuple[str, float, list[str]]], out: Path, rehearsing: bool) -> int:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)  # ends the step at work, as Ctrl-C does
    until = time.monotonic() + float(os.environ.get("MLPKERN_GPU_SECONDS") or "inf")
    done: list[Stage] = []
    for name, seconds, steps in stages:
        left = until - time.monotonic()
        done.append(Stage(name, steps, min(seconds, left), out, rehearsing))
        done[-1].run()
        print(f"\n{done[-1].summary()}", flush=True)
        if done[-1].interrupted:
            break
    if len(stages) > 1:
        rows = [f"{stage.name}  {shown(row)}" for stage in done for row in stage.rows]
        print("\n".join(["", "=== all stages", *rows]), flush=True)
    good = all(row["status"] == 0 for stage in done for row in stage.rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
