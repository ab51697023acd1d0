"""The mutation test of csrc/cuda: leaves out each barrier, wait and check, one at a time, and
expects a test to fail.

    python tests/cuda/mutation/mutate.py                    all of them
    python tests/cuda/mutation/mutate.py --sample 8         eight, others with every commit
    python tests/cuda/mutation/mutate.py --only reduce.cuh  those whose name contains this
    python tests/cuda/mutation/mutate.py --list             names them, runs nothing

mutations.py defines these places. A copy of the sources is built once, for the fibers of
tests/fiber under AddressSanitizer, with a switch around every check; the switches of barriers and
waits are in the shim. The environment variable MLPKERN_LEAVE_OUT says what a run leaves out. The
tests run a reduced list of cases (MLPKERN_TEST_QUICK).

uncaught.txt lists the places that no test can catch, each with its reason. A listed place that is
caught, a place that is neither listed nor caught, and a listed name without a place are errors.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import Place, find, includes, with_switches

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "csrc"
UNCAUGHT = Path(__file__).with_name("uncaught.txt")
TESTS = ROOT / "tests" / "cuda"
# The shim replaces these.
NOT_KERNELS = {"cuda/device/launch.cuh", "cuda/device/ptx.cuh", "cuda/library.cu"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", type=int, metavar="N", help="only N places, by the commit")
    parser.add_argument("--only", default="", metavar="TEXT", help="only names that contain this")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "mutate", metavar="FOLDER")
    options = parser.parse_args()

    ops = sorted(path.stem for path in (SOURCES / "cuda").glob("*.cu") if tests_of(path.stem))
    used = {op: files_of(op) for op in ops}
    texts, places = {}, []
    for file in sorted(set().union(*used.values()) - NOT_KERNELS):
        texts[file] = (SOURCES / file).read_text("utf-8")
        places += find(file, texts[file], len(places))
    reasons = read_uncaught(UNCAUGHT)
    if options.list:
        print(*places, sep="\n")
        return 0
    problems = [
        f"{UNCAUGHT.name}: no place is named {name}"
        for name in reasons.keys() - set(map(str, places))
    ]

    chosen = [place for place in places if options.only in str(place)]
    if options.sample:
        chosen = random.Random(commit()).sample(chosen, min(options.sample, len(chosen)))
    needed = [op for op in ops if any(place.file in used[op] for place in chosen)]
    print(f"{len(chosen)} of {len(places)} places, tests of {', '.join(needed)}", flush=True)
    build(
        options.build, {f: with_switches(t, places_in(places, f)) for f, t in texts.items()}, needed
    )
    limits = {}
    for op in needed:
        for program in programs(options.build, op):
            started = time.monotonic()
            failure, said = run(program, "", 600)
            seconds = time.monotonic() - started
            limits[program] = 30 + 10 * seconds
            print(f"{program.name}: {seconds:.1f} s with nothing left out", flush=True)
            if failure:
                print(said, f"{program.name} fails with nothing left out: {failure}", sep="\n")
                return 1

    def check(place: Place) -> tuple[Place, str, int]:
        reached = 0
        for program in (
            program
            for op in needed
            if place.file in used[op]
            for program in programs(options.build, op)
        ):
            failure, said = run(program, place.environment, limits[program])
            if failure:
                return place, f"{program.name}: {failure}", 1
            counted = re.search(r"fiber: left out (\d+) times", said)
            reached += int(counted[1]) if counted else 0
        return place, "", reached

    caught = 0
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        for place, failure, reached in pool.map(check, chosen):
            name = str(place)
            caught += bool(failure)
            if failure and name in reasons:
                problems.append(f"caught, but listed in {UNCAUGHT.name}: {name} ({failure})")
            elif not failure and name not in reasons:
                how = f"done {reached} times without it" if reached else "no test comes there"
                problems.append(f"not caught: {name} ({how}; {place.file}:{place.line})")
            print(f"{failure or 'not caught':60.60} {name}", flush=True)
    print(f"{caught} of {len(chosen)} caught, {len(chosen) - caught} not, {len(problems)} problems")
    print(*problems, sep="\n")
    return 1 if problems else 0


def tests_of(op: str) -> list[Path]:
    """test_<op>.cpp, then test_<op>_*.cpp; empty for a source of no op."""
    first = list(TESTS.glob(f"*/test_{op}.cpp"))
    return [*first, *sorted(first[0].parent.glob(f"test_{op}_*.cpp"))] if first else []


def programs(build: Path, op: str) -> list[Path]:
    return [build / "tests" / "cuda" / f"test_cuda_{path.stem[5:]}" for path in tests_of(op)]


def files_of(op: str) -> set[str]:
    """The sources in the test program of an op: its own, and those of no op."""
    sources = [f"cuda/{op}.cu"]
    sources += [
        f"cuda/{path.name}" for path in (SOURCES / "cuda").glob("*.cu") if not tests_of(path.stem)
    ]
    return set().union(
        *(includes(source, SOURCES) for source in sources if source not in NOT_KERNELS)
    )


def places_in(places: list[Place], file: str) -> list[Place]:
    return [place for place in places if place.file == file]


def read_uncaught(path: Path) -> dict[str, str]:
    """Name of a place -> why no test can catch it. A name has a line of its own, with its reason
    indented below; lines that begin with # are comments."""
    reasons: dict[str, str] = {}
    name = ""
    for line in path.read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            name = line.strip()
            reasons[name] = ""
        else:
            reasons[name] = f"{reasons[name]} {line.strip()}".strip()
    unexplained = [name for name, reason in reasons.items() if not reason]
    if unexplained:
        raise SystemExit(f"{path.name}: no reason for {unexplained[0]}")
    return reasons


def commit() -> str:
    """The seed of the sample: the commit, or "" without a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def build(folder: Path, texts: dict[str, str], ops: list[str]) -> None:
    """Compiles the tests of `ops` from sources with the given texts."""
    copy = folder / "sources"
    files = [path for path in (SOURCES / "cuda").rglob("*") if path.is_file()]
    names = {path.relative_to(SOURCES).as_posix() for path in files}
    for name in names:
        text = texts.get(name) or (SOURCES / name).read_text("utf-8")
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if not (copy / name).is_file() or (copy / name).read_text("utf-8") != text:
            (copy / name).write_text(text, "utf-8")
    for path in copy.rglob("*"):
        if path.is_file() and path.relative_to(copy).as_posix() not in names:
            path.unlink()
    jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
    configure = ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DMLPKERN_PYTHON=OFF"]
    configure += ["-DMLPKERN_CUDA=OFF", "-DMLPKERN_TESTS=ON"]
    configure += ["-DMLPKERN_ISAS=baseline", f"-DMLPKERN_CUDA_ROOT={copy}"]
    # All of UBSan would double the time of the compiler.
    configure += ["-DCMAKE_CXX_FLAGS=-fsanitize=address,bounds,alignment -fno-sanitize-recover=all"]
    targets = [program.name for op in ops for program in programs(folder, op)]
    for command in (
        configure,
        ["cmake", "--build", folder, "--parallel", jobs, "--target", *targets],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if "rror:" in line][:20]
            sys.exit("\n".join([*errors, done.stderr, "the build failed"]))


def run(program: Path, left_out: str, limit: float) -> tuple[str, str]:
    """How a test failed, "" if it passed, and its output."""
    environment = os.environ | {"MLPKERN_TEST_QUICK": "1", "ASAN_OPTIONS": "detect_leaks=0"}
    if left_out:
        environment["MLPKERN_LEAVE_OUT"] = left_out
    try:
        done = subprocess.run(
            [program], env=environment, capture_output=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return "does not end", ""
    said = done.stderr.decode(errors="replace")
    if done.returncode == 0:
        return "", said
    reports = (
        r"ERROR: (AddressSanitizer: [\w-]+)|(runtime error: .{,50})|(fiber: .*)|^\S+: (.{,80})"
    )
    found = re.search(reports, said, flags=re.MULTILINE)
    return (next(filter(None, found.groups())) if found else f"status {done.returncode}"), said


if __name__ == "__main__":
    sys.exit(main())
