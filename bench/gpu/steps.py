"""The steps and stages of bench/gpu.sh: what each runs, its time, and the lines it shows.

A step is a function of a `Work`; it returns whether it succeeded. Only the standard library is
imported.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.gpu import prebuilt
from bench.gpu import tests as gpu_tests
from bench.gpu.tests import words
from bench.gpu.told import benchmarked, last, marked, tested
from bench.gpu.work import Work


@dataclass(frozen=True)
class Step:
    """A step; `tells` picks the lines of its log for the summary, at most `room` characters."""

    run: Callable[[Work], bool]
    seconds: int  # at most
    tells: Callable[[str], list[str]]
    room: int = 1000


def machine(work: Work) -> bool:
    listed = work.call("nvidia-smi") == 0
    work.call("nvidia-smi", "-q", "-d", "CLOCK,POWER")
    return work.program("bench.gpu.card", "--out", str(work.folder / "card.json")) == 0 and listed


def build(work: Work) -> bool:
    """Takes the libraries that were built elsewhere, or builds what does not fit."""
    environment = {"MLPKERN_REQUIRE_NATIVE": "1", "MLPKERN_REQUIRE_CUDA": "1"}
    try:
        if work.rehearsing:
            raise prebuilt.Unusable(f"prepared is {prebuilt.prepared()}")
        work.say(f"• libraries {prebuilt.take()}")
    except prebuilt.Unusable as error:
        work.say(f"• {error}" + ("" if work.rehearsing else ": building here"))
        if error.cuda:
            environment["MLPKERN_CUDA_LIBRARY"] = str(error.cuda)
        pip = ["-m", "pip", "install", "-v", "--no-index", "--no-build-isolation", "--no-deps"]
        how = [*pip, "-e", "."]
        if work.rehearsing or work.call(work.python, "-m", "pip", "--version"):
            how = ["setup.py", "--version"] if work.rehearsing else ["setup.py", "build_ext", "-i"]
        if work.call(work.python, *how, env=environment):
            return False
    return work.call(work.python, "-m", "mlpkern", "info") == 0 and work.backend("cuda")


def smoke(work: Work) -> bool:
    return work.program("bench.gpu.smoke", "--out", str(work.folder / "smoke.json")) == 0


def figures(work: Work) -> bool:
    seconds = str(int(max(10, work.left() - 20)))
    out = str(work.folder / "figures.json")
    return work.program("bench.gpu.first_figures", "--out", out, "--seconds", seconds) == 0


def counters(work: Work) -> bool:
    return work.program("bench.gpu.counters", "--out", str(work.folder / "counters.json")) == 0


def bench(work: Work) -> bool:
    """Keeps a complete result as bench/results/CARD-DATE.json where no other folder was named."""
    # An empty cache makes the first call of a row cost what it costs on a new machine. The last
    # case that begins may take a minute.
    seconds = str(int(max(20, work.left() - 60)))
    record = ["--record"] if os.environ.get("RECORD") and not work.rehearsing else []
    with tempfile.TemporaryDirectory() as cache:
        return not work.program(
            *("bench.run", "--device", "cuda", "--seconds", seconds),
            *("--out", str(work.folder / "bench"), *record, *words()),
            env={"TRITON_CACHE_DIR": cache},
        )


def yardsticks(work: Work) -> bool:
    return work.program("bench.yardsticks", "--out", str(work.folder)) == 0


STEPS: dict[str, Step] = {
    "machine": Step(machine, 30, marked, 1600),
    "build": Step(build, 240, marked, 500),
    "smoke": Step(smoke, 90, marked, 1800),
    "memory": Step(gpu_tests.memory, 60, tested, 700),
    "figures": Step(figures, 150, marked, 4600),
    "counters": Step(counters, 60, marked, 1500),
    "device": Step(gpu_tests.device, 100, tested, 2600),
    "test": Step(gpu_tests.test, 130, tested, 2600),
    "sanitize": Step(gpu_tests.sanitize, 110, marked, 2200),
    "compile": Step(gpu_tests.compiling, 90, tested, 1300),
    "triton": Step(gpu_tests.triton, 110, tested, 1200),
    "seeds": Step(gpu_tests.seeds, 45, last, 900),
    "bench": Step(bench, 480, benchmarked, 7000),
    "yardsticks": Step(yardsticks, 45, last, 1800),
}
STAGES: dict[str, tuple[int, Sequence[str]]] = {  # seconds for all of it, and its steps
    "1": (360, ("machine", "build", "smoke", "memory", "figures", "counters")),
    "2": (540, ("build", "device", "test", "sanitize", "compile", "triton", "seeds")),
    "3": (540, ("build", "bench", "yardsticks")),
}
