"""One place for the steps of CI, for the version, and for the documents at the top."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import mlpkern

yaml = pytest.importorskip("yaml", reason="the extra `test` has pyyaml")
ROOT = Path(__file__).resolve().parents[2]


def text(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def steps() -> list[str]:
    command = ["bash", ROOT / ".ci" / "run", "--list"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_every_step_of_ci_is_a_job_and_every_job_a_step():
    called = []
    for job in yaml.safe_load(text(".github", "workflows", "ci.yml"))["jobs"].values():
        for line in (step["run"] for step in job["steps"] if "run" in step):
            command, *names = line.split(maxsplit=1)
            assert command == ".ci/run"
            matrix = job["strategy"]["matrix"]["step"]
            called += matrix if names == ["${{ matrix.step }}"] else names[0].split()
    assert called == steps()


def test_every_step_of_ci_is_explained_and_has_a_make_target():
    rows = re.findall(r"^\| (\w+) \| `make ([\w-]+)` \|", text("CONTRIBUTING.md"), re.M)
    assert [step for step, _ in rows] == steps()
    targets = re.findall(r"^([\w-]+):", text("Makefile"), re.M)
    assert {target for _, target in rows} <= set(targets)
    for step, target in rows:
        assert re.search(rf"^{step} +\| make {target}\b", text(".ci", "run"), re.M), step


def test_a_step_that_does_not_exist_is_refused():
    done = subprocess.run(["bash", ROOT / ".ci" / "run", "lint", "lnit"], capture_output=True)
    assert done.returncode == 2
    assert b"no step lnit, expected one of test " in done.stderr


def test_missing_cross_compilers_are_named(tmp_path):
    for tool in ("env", "id"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    command = [shutil.which("bash"), ROOT / ".ci" / "cross-tools"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "neon: missing aarch64-linux-gnu-g++ clang++ qemu-aarch64: "
        "install the Debian packages g++-aarch64-linux-gnu clang qemu-user\n"
    )


def test_every_step_runs_and_a_failure_is_told(tmp_path):
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "ran $1"\n[ "$1" != lint ]\n')
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", ROOT / ".ci" / "run", "lint", "docs"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.findall(r"^ran (\w+)$", done.stdout, re.M) == ["lint", "docs"]
    summary = done.stdout.partition("==== summary\n")[2]
    assert re.findall(r"^(\w+) +(FAILED|passed)", summary, re.M) == [
        ("lint", "FAILED"),
        ("docs", "passed"),
    ]


@pytest.mark.parametrize(("target", "step"), [("test", "tests"), ("bench", "benchmark")])
def test_make_says_what_it_does_and_how_long_it_took(tmp_path, target, step):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "python $*"\n[ "$2" = pip ] || exit 3\n')
    python.chmod(0o755)
    command = ["make", target, "VENV=none", f"PYTHON={python}", f"state={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Error 3" in done.stderr
    lines = [re.sub(r"\d+ s$", "0 s", line) for line in done.stdout.splitlines()]
    said = [line for line in lines if line.startswith(("make: ", "python -"))]
    assert said[0] == "make: install with test bench: packages and the compiled kernels"
    assert said[1].startswith("python -m pip install ")
    assert said[2] == "make: install: 0 s"
    assert said[3].startswith(f"make: {step} ")
    assert said[-1] == f"make: {step}: 0 s"


def test_the_version_stands_in_one_place():
    """A build reads the literal in the package, without importing it: torch may be absent."""
    expand = pytest.importorskip("setuptools.config.expand", reason="the extra `dev` has it")
    dynamic = re.search(r'^version = \{ attr = "([\w.]+)" \}', text("pyproject.toml"), re.M)
    assert dynamic
    assert not re.search(r'^version = "', text("pyproject.toml"), re.M)
    assert expand.read_attr(dynamic[1], root_dir=ROOT) == mlpkern.__version__
    literal = rf'^__version__ = "{re.escape(mlpkern.__version__)}"$'
    assert re.search(literal, text("mlpkern", "__init__.py"), re.M)
    assert mlpkern.__version__ in text("CHANGELOG.md")


def test_forms_for_issues_ask_for_what_is_needed():
    forms = [p for p in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if p.stem != "config"]
    assert forms
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= form.keys(), path.name
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids))
        assert all(field["attributes"]["label"] for field in form["body"])
