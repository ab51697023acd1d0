"""bench/gpu.sh --rehearse: every line that needs no GPU, and an exit status that tells."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.bench.gpu_script import statuses

from bench import ROOT
from bench.gpu import steps as gpu_steps
from bench.gpu.rehearsal import tools as rehearsal_tools

SCRIPT = ROOT / "bench" / "gpu.sh"


def test_every_step_of_every_stage_is_rehearsed(gpu_sh):
    found, status, calls, text = gpu_sh("--rehearse")
    assert status == 0, text
    for number, (_, steps) in gpu_steps.STAGES.items():
        assert statuses(found, f"stage{number}") == [(step, 0) for step in steps]
    lines = calls.splitlines()
    tests = [line for line in lines if "-m pytest" in line]
    assert len(tests) == 5
    assert all("--collect-only" in line for line in tests)
    programs = [line for line in lines if "bench." in line and "-m pytest" not in line]
    assert {line.split()[1] for line in programs} == {"bench.gpu.rehearsal.program"}
    assert not any("install" in line or "--record" in line or "cuda:" in line for line in lines)
    for program in ("gpu.smoke", "gpu.first_figures", "gpu.counters", "seeds", "run"):
        assert any(f" bench.{program} " in line for line in programs), program
    assert any(line.endswith(" bench.gpu.sanitizer_cases") for line in programs)


@pytest.mark.parametrize(
    ("broken", "step"),
    [
        ("gpu.smoke=1", "smoke"),
        ("record_stream=5", "memory"),  # no test of that name: what pytest returns for none
        ("setup.py=1", "build"),
        ("sanitizer_cases=1", "sanitize"),
        ("train=1", "triton"),
    ],
)
def test_a_line_that_fails_in_a_rehearsal_fails_it(gpu_sh, broken, step):
    found, status, _, _ = gpu_sh("--rehearse", step, "counters", fake=broken)
    assert (statuses(found), status) == ([(step, 1), ("counters", 0)], 1)


def test_a_program_runs_with_the_stand_ins(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)}
    command = [str(SCRIPT), "--rehearse", "counters"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "• train_steps_narrow_kernel: time 50" in done.stdout
    files = {path.name for path in (tmp_path / "steps").iterdir()}
    assert files == {"counters.json", "log.txt", "result.json"}


@pytest.mark.parametrize("tool", sorted(rehearsal_tools.TOOLS))
def test_a_stand_in_answers_and_ends(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.environ["PATH"])
    rehearsal_tools.install(tmp_path / "tools")
    for option in ("--version", "--help"):
        done = subprocess.run([tool, option], capture_output=True, text=True, timeout=20)
        assert done.stdout
