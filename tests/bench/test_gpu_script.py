"""bench/gpu.sh with a stand-in for Python: stages, statuses, times, files. Nothing is measured."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.bench.gpu_script import FAKE_PYTHON, statuses

from bench import ROOT
from bench.gpu import prebuilt
from bench.gpu import stages as gpu_stages
from bench.gpu import steps as gpu_steps
from bench.gpu import tests as gpu_tests
from bench.gpu import told as gpu_told
from bench.gpu import work as gpu_work

SCRIPT = ROOT / "bench" / "gpu.sh"


# Stages


def test_every_stage_has_its_steps_files_and_summary(gpu_sh, tmp_path):
    found, status, calls, text = gpu_sh()
    assert status == 0, text
    for number, (_, steps) in gpu_steps.STAGES.items():
        stage = f"stage{number}"
        assert statuses(found, stage) == [(step, 0) for step in steps]
        log = (tmp_path / "out" / stage / "log.txt").read_text()
        assert all(f"=== {step}: status 0" in log for step in steps)
        assert text.count(f"=== {stage}: ") == 1
        files = {p.name for p in (tmp_path / "out" / stage).iterdir()}
        assert files == {"log.txt", "result.json"}  # the programs add theirs
    assert {step for _, steps in gpu_steps.STAGES.values() for step in steps} == set(
        gpu_steps.STEPS
    )
    assert text.index("=== all stages") > text.index("=== stage3: ")
    order = ["smoke", "first_figures", "counters", "tests/compile", "bench.run"]
    places = [calls.index(program) for program in order]
    assert places == sorted(places)


def test_each_stage_and_step_stands_alone(gpu_sh):
    found, status, calls, text = gpu_sh("1")
    assert (list(found), status) == (["stage1"], 0)
    assert "bench.run" not in calls
    assert text.rstrip().splitlines()[-1].startswith("• figure of ")
    found, _, calls, _ = gpu_sh("counters", "yardsticks")
    assert statuses(found) == [("counters", 0), ("yardsticks", 0)]
    assert "bench.yardsticks" in calls


def test_no_stage_asks_for_more_than_a_command_may_take():
    for seconds, steps in gpu_steps.STAGES.values():
        assert seconds + gpu_work.GRACE_S <= 560
        assert sum(gpu_steps.STEPS[step].room for step in steps) < gpu_stages.SUMMARY


def test_a_failing_step_stops_no_other_and_sets_the_status(gpu_sh):
    found, status, calls, text = gpu_sh("yardsticks", "bench", "device", fake="yardsticks=7")
    assert statuses(found) == [("yardsticks", 1), ("bench", 0), ("device", 0)]
    assert status == 1
    assert found["steps"]["steps"][2]["told"] == ["5 passed in 1 s"]
    assert "--device cuda --seconds" in calls
    assert "--record" not in calls  # OUT is named, so nothing is kept in the tree
    assert "--- device\n5 passed in 1 s" in text


def test_a_step_that_breaks_is_told_and_stops_no_other(gpu_sh, monkeypatch):
    def broken():
        raise ValueError("no wheel")

    monkeypatch.setattr(prebuilt, "take", broken)
    found, status, _, _ = gpu_sh("build", "counters")
    assert (statuses(found), status) == ([("build", 1), ("counters", 0)], 1)
    assert found["steps"]["steps"][0]["told"][-1] == "ValueError: no wheel"


def test_without_a_folder_the_benchmark_is_recorded(gpu_sh, monkeypatch, tmp_path):
    monkeypatch.delenv("OUT")
    monkeypatch.setattr(gpu_stages, "OUT", tmp_path / "elsewhere")
    _, _, calls, _ = gpu_sh("bench")
    assert " --record" in calls
    assert (tmp_path / "elsewhere" / "steps" / "result.json").exists()


def test_paths_are_those_of_the_folder_that_it_is_called_in(gpu_sh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORDS", "names.txt")
    monkeypatch.setenv("PYTHON", "./python")
    monkeypatch.setenv("OUT", "out")
    _, status, calls, _ = gpu_sh("bench", "seeds")
    assert status == 0
    assert calls.count(f"--file {tmp_path / 'names.txt'}") == 2
    assert f"--out {tmp_path / 'out' / 'steps' / 'bench'}" in calls


# Time


def test_a_step_that_runs_out_of_its_time_is_ended_with_all_that_it_started(gpu_sh, monkeypatch):
    monkeypatch.setattr(gpu_stages, "LEAST_S", 1)
    found, status, _, text = gpu_sh("yardsticks", "machine", fake="yardsticks=slow", seconds=2.4)
    slow, late = found["steps"]["steps"]
    assert (slow["status"], slow["note"]) == (124, "ran out of its 2 s")
    assert late["note"] == "no time was left"
    assert status == 1
    assert slow["seconds"] < 20
    assert "ran out of its 2 s" in text


def test_what_ends_the_script_leaves_what_was_done(gpu_sh):
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    found, status, _, text = gpu_sh("counters", "yardsticks", "device", fake="yardsticks=slow")
    timer.join()
    assert statuses(found) == [("counters", 0), ("yardsticks", 130)]
    assert status == 1
    assert "=== steps: " in text


def test_a_killed_script_has_written_the_steps_before(gpu_sh, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setitem(
        gpu_steps.STEPS,
        "yardsticks",
        gpu_steps.Step(
            lambda work: seen.append((tmp_path / "out/steps/result.json").read_text()) or True,
            9,
            gpu_told.last,
        ),
    )
    gpu_sh("counters", "yardsticks")
    assert [row["step"] for row in json.loads(seen[0])["steps"]] == ["counters"]


# What is told


def test_the_summary_is_short_dense_and_names_every_failure(gpu_sh, tmp_path):
    failures = "\n".join(f"FAILED tests/test_a.py::test_{i} - {'why ' * 60}" for i in range(200))
    (tmp_path / "python").write_text(
        FAKE_PYTHON.replace('echo "•', f'echo "{failures}"\necho "•').replace(
            "5 passed", "9 failed"
        )
    )
    _, _, _, text = gpu_sh("2")
    summary = text[text.index("=== stage2: ") :]
    assert len(summary) <= 12_000
    for step in ("device", "test", "compile", "triton"):
        part = summary[summary.index(f"--- {step}\n") :].split("--- ")[1]
        assert "FAILED tests/test_a.py::test_0 - why why" in part
        assert "lines more in log.txt" in part


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x\n===== 2 failed, 3 passed in 4.1s =====\n", ["2 failed, 3 passed in 4.1s"]),
        ("FAILED a::b - E: no\n= 1 failed in 1s =", ["FAILED a::b - E: no", "1 failed in 1s"]),
        ("8/50 tests collected (42 deselected) in 0.2s", None),
        ("no tests collected (161 deselected) in 1.97s", None),
        ("Killed", None),
    ],
)
def test_of_tests_the_failures_and_the_totals_are_told(text, told):
    assert gpu_told.tested(text) == (told or [text])


def test_of_the_benchmark_the_population_and_the_table_are_told():
    text = (
        "limits\n\npopulation of 132 models\n  precision\n  tf32 2 s\n\nratio: best stock x\n  a 1"
    )
    text += "\n\nwrote result.json\nREFUSED  linear_tanh: WRONG"
    assert gpu_told.benchmarked(text) == [
        *("population of 132 models", "  precision", "  tf32 2 s", "REFUSED  linear_tanh: WRONG"),
        *("ratio: best stock x", "  a 1"),
    ]
    assert gpu_told.benchmarked("a\nkilled") == ["a", "killed"]


# Steps


def test_without_the_backend_its_tests_are_a_failure(gpu_sh):
    found, status, calls, _ = gpu_sh("test", "triton", "device", "memory", fake="has_backend=1")
    assert [s for _, s in statuses(found)] == [1, 1, 1, 1]
    assert "pytest" not in calls
    assert status == 1


def test_the_tests_that_are_chosen_by_name_exist():
    text = "\n".join((ROOT / path).read_text() for path in gpu_tests.GPU_TESTS)
    for name in gpu_tests.PROMISES:
        assert re.search(rf"^def test_\w*{name}", text, re.MULTILINE), name


def test_triton_is_tested_and_trains_in_a_copy_without_the_libraries(gpu_sh):
    found, status, calls, text = gpu_sh("triton")
    assert (statuses(found), status) == ([("triton", 0)], 0), text
    lines = calls.splitlines()
    (suite,) = (line for line in lines if "pytest" in line and "-k triton" in line)
    assert "tests/backends/test_triton_build.py" in suite
    assert "--ignore=tests/docs" in suite  # they read what the copy has not
    (training,) = (line for line in lines if "mlpkern train" in line)
    assert "--preset lecture" in training
    for broken in ("pytest=1", "train=1", "summary.json=1"):
        assert statuses(gpu_sh("triton", fake=broken)[0]) == [("triton", 1)], broken


def test_the_copy_has_no_native_library_and_the_tree_keeps_its_own(gpu_sh, tmp_path):
    before = sorted(ROOT.glob("mlpkern/*.so"))
    seen = tmp_path / "seen"
    (tmp_path / "python").write_text(
        f'#!/bin/bash\n[ "$PWD" = {ROOT} ] || {{ pwd; ls mlpkern; }} >>{seen}\n'
    )
    gpu_sh("triton")
    listed = seen.read_text()
    assert "registry.py" in listed
    assert ".so" not in listed
    assert sorted(ROOT.glob("mlpkern/*.so")) == before
    assert not Path(listed.splitlines()[0]).exists()  # the copy is gone


def test_the_benchmark_begins_with_nothing_that_triton_compiled(gpu_sh, tmp_path):
    (tmp_path / "python").write_text(
        '#!/bin/bash\necho "population of $(ls -A "$TRITON_CACHE_DIR" | wc -l) files"\n'
    )
    found, _, _, _ = gpu_sh("bench")
    assert found["steps"]["steps"][0]["told"][0] == "population of 0 files"


def test_what_does_not_fit_is_built_with_no_index_and_the_library_that_does(gpu_sh, monkeypatch):
    def unusable():
        raise prebuilt.Unusable("another Python", Path("given/_cuda.so"))

    monkeypatch.setattr(prebuilt, "take", unusable)
    found, status, calls, _ = gpu_sh("build")
    assert status == 0
    assert "• another Python: building here" in found["steps"]["steps"][0]["told"]
    install = next(line for line in calls.splitlines() if " install " in line)
    assert {"--no-index", "--no-build-isolation", "--no-deps"} <= set(install.split())
    _, _, calls, _ = gpu_sh("build", fake="--version=1")  # no pip here
    assert "setup.py build_ext" in calls
    assert gpu_sh("build", fake="has_backend=1")[1] == 1
    monkeypatch.setattr(prebuilt, "take", lambda: "taken")
    assert "install" not in gpu_sh("build")[2]


def test_the_sanitizer_has_three_tools_whose_word_is_taken_with_their_summary_only(gpu_sh):
    found, status, calls, _ = gpu_sh("sanitize")
    assert (statuses(found), status) == ([("sanitize", 0)], 0)
    for tool in ("memcheck", "racecheck", "synccheck"):
        assert f"--tool {tool}" in calls
    _, _, calls, _ = gpu_sh("sanitize", summary="--kernel-name as the help has it")
    assert calls.count("--kernel-name kernel_substring=mlpkern") == 3
    for summary in ("ERROR SUMMARY: 3 errors", "Error: Device not supported"):
        found, status, _, text = gpu_sh("sanitize", summary=summary)
        assert (statuses(found), status) == ([("sanitize", 1)], 1)
        assert f"WRONG memcheck: exit status 0: ========= {summary}" in text


# The script


def test_the_script_is_executable_and_refuses_an_unknown_step():
    assert os.access(SCRIPT, os.X_OK)
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([SCRIPT, "biuld"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no stage or step biuld; there are: stages 1, 2, 3; steps machine, build" in done.stderr
