"""Commands in the documentation are ones that the command line takes, figures those measured."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlpkern import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RESULT = ROOT / "bench" / "results" / "cpu-2026-11-23.json"


CALL = re.compile(r"(?:\$ )?(?:[A-Z_]+=\S+ )?(?:zcat \S+ \| )?mlpkern (?![\w-]+:)(.*)")


def commands(text: str) -> list[list[str]]:
    """The arguments of every `mlpkern ...` in a fence, but for those that show an error."""
    found = []
    for language, fence in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        lines = [] if language else re.sub(r"\\\n *", "", fence).splitlines()
        for i, line in enumerate(lines):
            if (call := CALL.match(line)) and ": error: " not in "".join(lines[i + 1 : i + 2]):
                found.append(shlex.split(re.split(r" +#| [|>]| \d?>&| <\(| {3,}", call[1])[0]))
    return found


def test_every_command_of_the_pages_is_taken(capsys):
    parser, wrong, seen = cli._parser(), [], 0
    for page in PAGES:
        for arguments in commands(page.read_text(encoding="utf-8")):
            seen += 1
            try:
                parser.parse_args(arguments)
            except SystemExit as end:
                if end.code:  # not --help or --version
                    wrong.append(f"{page.name}: {shlex.join(arguments)}: {capsys.readouterr().err}")
    assert wrong == []
    assert seen > 40


def refusals() -> list[tuple[str, str]]:
    """The commands and messages of the errors that the pages show and that need no run."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = re.findall(r"^\$ mlpkern (.*)\n(mlpkern .*: error: .*)$", text, re.M)
    return [(arguments, message) for arguments, message in shown if "runs/" not in arguments]


@pytest.mark.parametrize(("arguments", "message"), refusals())
def test_errors_are_those_of_the_pages(arguments, message, capsys, monkeypatch, tmp_path):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("shown is a machine without a GPU")
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):
        cli.main(shlex.split(arguments))
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.split("this machine has")[0] == message.split("this machine has")[0]


def templates() -> list[re.Pattern[str]]:
    """A pattern for each text of the package with four words or more and at least one value."""
    found = []
    for path in (ROOT / "mlpkern").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value for part in node.values]
                if sum(len(part.split()) for part in parts if isinstance(part, str)) >= 4:
                    literal = (re.escape(p) if isinstance(p, str) else ".*" for p in parts)
                    found.append(re.compile("".join(literal).rstrip(r"\ ")))
    return found


def test_messages_of_the_pages_are_those_of_the_package():
    """Also those that need a run, a full disk or a second process."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    messages = re.findall(r"^mlpkern [\w-]+: (?:error|warning): (.*)$", text, re.M)
    messages = [text for text in messages if "MLPKERN_ISA" not in text]  # of the native library
    known = templates()
    assert [text for text in messages if not any(t.search(text) for t in known)] == []
    assert len(messages) >= 9


@pytest.fixture(scope="module")
def measured() -> list[str]:
    """The lines of the tables that the benchmark writes from the result that is kept."""
    command = [sys.executable, ROOT / "bench" / "report.py", RESULT, "--markdown"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return [line for line in done.stdout.splitlines() if line.startswith("|")]


def rows(*path: str) -> list[str]:
    lines = ROOT.joinpath(*path).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(("| case ", "| step of")))
    return [line for line in lines[start:] if line.startswith("|")]


def test_the_figures_are_those_measured(measured):
    assert rows("docs", "benchmarks", "figures.md")[: len(measured)] == measured


def test_the_page_of_all_machines_is_what_the_benchmark_writes():
    command = [sys.executable, ROOT / "bench" / "report.py", "--all", "--markdown"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    page = ROOT / "docs" / "benchmarks" / "machines.md"
    assert page.read_text(encoding="utf-8") == done.stdout


def test_the_readme_shows_measured_rows_and_all_of_the_worst(measured):
    shown = [row for row in rows("README.md") if "|--" not in row]
    assert set(shown) <= set(measured)
    cases = [row for row in measured if re.search(r"\| \d+\.\d\dx", row) and row.count("|") == 8]
    ratio = {row: float(re.search(r"\| (\d+\.\d\d)x", row)[1]) for row in cases}
    assert [row for row in cases if ratio[row] < 1.3 and row not in shown] == []
    kept = json.loads(RESULT.read_text(encoding="utf-8"))
    text = ROOT.joinpath("README.md").read_text(encoding="utf-8")
    family = kept["machine"]["cpu"].partition(", ")[2]
    for fact in (family, kept["date"][:10], kept["versions"]["torch"].partition("+")[0]):
        assert fact in text
