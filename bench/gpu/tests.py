"""The steps of bench/gpu.sh that test: the suite on each backend, sanitizers, seeds.

Only the standard library is imported.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.gpu.told import last
from bench.gpu.work import ROOT, Work

PROMISES = ("record_stream_keeps_an_output", "needs_the_last_kilobyte")
TOOLS = ("memcheck", "racecheck", "synccheck")
NEED_NO_GPU = ("tests/bench", "tests/docs", "tests/packaging")


def tests_in(folder: str, pattern: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / folder).glob(pattern))]


GPU_TESTS = tuple(
    path
    for path in tests_in("tests/gpu", "test_*.py")
    if not path.endswith(("test_cuda_build.py", "test_cuda_machine_code.py", "test_mutations.py"))
)


def memory(work: Work) -> bool:
    """Two promises that only a GPU can break, each a test of this name."""
    word = f"({' or '.join(PROMISES)}) and not triton"
    return work.backend("cuda") and work.pytest("-k", word, *GPU_TESTS) == 0


def suite(
    work: Work,
    word: str,
    processes: int,
    folder: str = "tests",
    ignored: Sequence[str] = (),
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
) -> bool:
    """The tests with that word in their names, in several processes where xdist is installed."""
    options = ["-k", word, *(f"--ignore={path}" for path in ignored)]
    if work.has("pytest_timeout"):
        options += ["-p", "pytest_timeout", "--timeout=60", "--timeout-method=thread"]
    if work.has("xdist"):
        options += ["-p", "xdist.plugin", "-n", str(processes)]
    return work.pytest(*options, folder, cwd=cwd, env=env) == 0


def device(work: Work) -> bool:
    """Streams, graphs, several GPUs, bad ids, more than 2^31 elements, trainings."""
    word = "not test_device or cuda"  # the step `triton` runs the rest
    return work.backend("cuda") and work.pytest("--durations=5", "-k", word, *GPU_TESTS) == 0


def test(work: Work) -> bool:
    ignored = (*NEED_NO_GPU, "tests/gpu", "tests/compile")  # the last two have steps of their own
    return work.backend("cuda") and suite(work, "cuda and not triton", 4, ignored=ignored)


def compiling(work: Work) -> bool:
    """torch.compile needs the CPU: many processes."""
    return work.backend("cuda") and suite(work, "cuda", 8, "tests/compile")


def sanitize(work: Work) -> bool:
    """The three tools side by side, each on a program of its own."""
    if not shutil.which("compute-sanitizer"):
        work.say("• compute-sanitizer is missing")
        return False
    help_text = work.together({"help": ["compute-sanitizer", "--help"]}, {})["help"][1]
    # Our kernels only, by their namespace: checking those of torch takes minutes. The name of
    # the option depends on the version.
    ours = []
    if "--kernel-name" in help_text:
        ours = ["--kernel-name", "kernel_substring=mlpkern"]
    elif "--kernel-regex" in help_text:
        ours = ["--kernel-regex", "kns=mlpkern"]
    checked = work.command("bench.gpu.sanitizer_cases")
    options = ["--error-exitcode", "9", "--print-limit", "20", *ours]
    found = work.together(
        {tool: ["compute-sanitizer", "--tool", tool, *options, *checked] for tool in TOOLS},
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )
    good = True
    for tool, (status, text) in found.items():
        # Only the summary shows that the tool checked something: the exit status 0 does not.
        clean = re.search(r"(?:ERROR|RACECHECK) SUMMARY: 0", text)
        mark = "ok    " if status == 0 and clean else "WRONG "
        good = good and mark != "WRONG "
        said = [line for line in text.splitlines() if "=========" in line or "wrong" in line]
        shown = said[-1:] if mark != "WRONG " else [*said[:6], *last(text)[-3:]]
        work.say(f"{mark}{tool}: exit status {status}: " + " | ".join(shown)[:700])
    return good


def triton(work: Work) -> bool:
    """The backend triton in a copy of the tree that has no native library."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        without = shutil.ignore_patterns("*.so", "__pycache__", "out")
        for part in ("mlpkern", "tests", "bench"):
            shutil.copytree(ROOT / part, copy / part, ignore=without)
        shutil.copy(ROOT / "pyproject.toml", copy)
        # An editable install would still find the library of the tree.
        (copy / "mlpkern" / "_C.py").write_text('raise ImportError("left out here")\n')
        alone = {
            "PYTHONPATH": os.pathsep.join(filter(None, [name, os.environ.get("PYTHONPATH")])),
            "TRITON_CACHE_DIR": f"{name}/cache",
        }
        return triton_alone(work, copy, alone)


def triton_alone(work: Work, copy: Path, alone: dict[str, str]) -> bool:
    asked = "import mlpkern, sys; b = mlpkern.backends(); print(mlpkern.__file__); "
    asked += "sys.exit(b['cpu'].available or b['cuda'].available)"
    if work.call(work.python, "-c", asked, cwd=copy, env=alone):
        work.say("• a native library is still found")
        return False
    if work.call(*work.command("bench.gpu.has_backend", "triton"), cwd=copy, env=alone):
        return False
    # Compiling takes most of the time: many processes, and each kernel in one configuration.
    untuned = {**alone, "MLPKERN_TRITON_TUNE": "0"}
    offline = tests_in("tests/backends", "test_triton_build.py")
    ignored = (*NEED_NO_GPU, *offline, *tests_in("tests/gpu", "test_cuda_*.py"))
    good = suite(work, "triton", 8, ignored=ignored, cwd=copy, env=untuned)
    steps = ["--steps", "2000", "--log-every", "500", "--eval-every", "2000", "--device", "cuda"]
    backend = "triton"
    if work.rehearsing:
        steps = ["--steps", "20", "--eval-every", "20", "--device", "cpu", "--engine", "ops"]
        backend = "reference"
    training = ["-m", "mlpkern", "train", "--preset", "lecture", *steps, "--out", "run"]
    trains = work.call(work.python, *training, cwd=copy, env={**alone, "MLPKERN_BACKEND": backend})
    engine = "import json, sys; engine = json.load(open('run/summary.json'))['engine']; "
    engine += "sys.exit(engine != 'ops' and f'the engine was {engine}')"
    return good and trains == 0 and work.call(work.python, "-c", engine, cwd=copy, env=alone) == 0


def seeds(work: Work) -> bool:
    many = (
        ["--seeds", "2", "--steps", "20", "--alpha", "0"] if work.rehearsing else ["--seeds", "44"]
    )
    threads = str(os.cpu_count() or 1)
    return work.backend("cuda") and not work.program(
        "bench.seeds", "--device", "cuda", *many, "--threads", threads, *words()
    )


def words() -> list[str]:
    named = os.environ.get("WORDS")
    return ["--file", os.path.abspath(named)] if named else []
