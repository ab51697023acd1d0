"""bench/gpu.sh with a stand-in for Python: steps, statuses, times, files. Nothing is measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "bench" / "gpu.sh"

pytestmark = pytest.mark.skipif(not shutil.which("timeout"), reason="no `timeout` of coreutils")

# Logs how it was called; ends as the name of the program says in $FAKE ("run.py=7 yardsticks=slow")
FAKE_PYTHON = """#!/bin/bash
echo "$@" >>"$CALLS"
for rule in $FAKE; do
  if [[ "$*" == *"${rule%=*}"* ]]; then
    [ "${rule#*=}" = slow ] && sleep 30
    exit "${rule#*=}"
  fi
done
echo "== 5 passed in 1 s =="
"""
FAKE_SANITIZER = """#!/bin/bash
echo "sanitizer $@" >>"$CALLS"
echo "========= $SUMMARY"
"""


@pytest.fixture
def run(tmp_path):
    """Runs the script: what is in gpu.json, the exit status, the calls of Python, the text."""
    for name, text in {"python": FAKE_PYTHON, "compute-sanitizer": FAKE_SANITIZER}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def call(*steps, fake="", seconds=100, summary="ERROR SUMMARY: 0 errors"):
        calls = tmp_path / "calls"
        calls.write_text("")
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHON": str(tmp_path / "python"),
            "OUT": str(tmp_path / "out"),
            "MLPKERN_GPU_SECONDS": str(seconds),
            "CALLS": str(calls),
            "FAKE": fake,
            "SUMMARY": summary,
        }
        done = subprocess.run(
            ["bash", str(SCRIPT), *steps], env=environment, capture_output=True, text=True
        )
        summary_file = tmp_path / "out" / "gpu.json"
        found = json.loads(summary_file.read_text()) if summary_file.exists() else None
        return found, done.returncode, calls.read_text(), done.stdout + done.stderr

    return call


def test_a_failing_step_stops_no_other_and_sets_the_status(run):
    found, status, calls, text = run("yardsticks", "bench", "device", fake="yardsticks=7")
    assert [(s["step"], s["status"]) for s in found["steps"]] == [
        ("yardsticks", 7),
        ("bench", 0),
        ("device", 0),
    ]
    assert status == 1
    assert found["steps"][2]["note"] == "5 passed in 1 s"
    assert "--device cuda --seconds" in calls
    assert "--record" not in calls  # OUT is named, so nothing is kept in the tree
    assert "summary" in text


def test_a_step_that_runs_out_of_its_time_is_ended(run):
    found, status, _, _ = run("yardsticks", "machine", fake="yardsticks=slow", seconds=6)
    slow = found["steps"][0]
    assert (slow["status"], slow["note"]) == (124, "ran out of its 6 s")
    assert found["steps"][1]["note"] == "no time was left"
    assert status == 1


def test_without_the_backend_its_tests_are_a_failure(run):
    found, status, calls, _ = run("test", "triton", "device", fake="backends()=1")
    assert [s["status"] for s in found["steps"]] == [1, 1, 1]
    assert "pytest" not in calls
    assert status == 1


def test_triton_is_tested_and_trains_in_a_copy_without_the_libraries(run):
    found, status, calls, text = run("triton")
    assert (found["steps"][0]["status"], status) == (0, 0), text
    assert found["steps"][0]["note"] == "5 passed in 1 s"
    lines = calls.splitlines()
    (suite,) = (line for line in lines if "pytest" in line and "-k triton" in line)
    assert "tests/test_triton_build.py" in suite
    (training,) = (line for line in lines if "mlpkern train" in line)
    assert "--preset lecture" in training
    for broken in ("pytest=1", "train=1", "summary.json=1"):
        found, status, _, _ = run("triton", fake=broken)
        assert (found["steps"][0]["status"], status) == (1, 1), broken


def test_the_copy_has_no_native_library_and_the_tree_keeps_its_own(run, tmp_path, monkeypatch):
    before = sorted(ROOT.glob("mlpkern/*.so"))
    seen = tmp_path / "seen"
    (tmp_path / "python").write_text(
        FAKE_PYTHON.replace("#!/bin/bash", f'#!/bin/bash\nls "$PWD"/mlpkern >>{seen}')
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run("triton")
    assert "backends.py" in seen.read_text()
    assert ".so" not in seen.read_text()
    assert sorted(ROOT.glob("mlpkern/*.so")) == before
    assert not list(tmp_path.glob("tmp.*"))  # the copy is gone


def test_the_benchmark_begins_with_nothing_that_triton_compiled(run, tmp_path):
    (tmp_path / "python").write_text(
        FAKE_PYTHON.replace(
            "#!/bin/bash", '#!/bin/bash\necho "cache $(ls -A "$TRITON_CACHE_DIR" | wc -l)"'
        )
    )
    _, _, _, text = run("bench")
    assert "cache 0" in text


def test_the_build_must_have_the_libraries_and_asks_no_index(run):
    found, _, calls, _ = run("build", fake="backends()=1")
    assert found["steps"][0]["status"] == 1
    install = next(line for line in calls.splitlines() if " install " in line)
    assert {"--no-index", "--no-build-isolation", "--no-deps"} <= set(install.split())
    found, _, calls, _ = run("build", fake="--version=1")  # no pip here
    assert found["steps"][0]["status"] == 0
    assert "setup.py build_ext --inplace" in calls


def test_the_sanitizer_has_three_tools_whose_word_is_taken_with_their_summary_only(run):
    found, status, calls, _ = run("sanitize")
    assert (found["steps"][0]["status"], status) == (0, 0)
    for tool in ("memcheck", "racecheck", "synccheck"):
        assert f"--tool {tool}" in calls
    _, _, calls, _ = run("sanitize", summary="--kernel-name as the help has it")
    assert calls.count("--kernel-name kernel_substring=mlpkern") == 3
    for summary in ("ERROR SUMMARY: 3 errors", "Error: Device not supported"):
        found, status, _, _ = run("sanitize", summary=summary)
        assert (found["steps"][0]["status"], status) == (1, 1)


def test_an_unknown_step_is_refused(run):
    found, status, _, text = run("biuld")
    assert (found, status) == (None, 2)
    assert "machine build test triton device sanitize yardsticks seeds bench" in text


def test_all_steps_are_done_by_default_and_few_files_are_left(run, tmp_path):
    found, _, _, _ = run(fake="setup.py=0")
    names = ["machine", "build", "test", "triton", "device", "sanitize", "yardsticks", "seeds"]
    names.append("bench")
    assert [s["step"] for s in found["steps"]] == names
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert {p.name for p in files} == {"gpu.log", "gpu.json"}  # yardsticks and bench add four
    log = (tmp_path / "out" / "gpu.log").read_text()
    assert all(f"=== {name}: exit status" in log for name in names if name != "machine")


def test_the_script_is_executable_and_in_bash():
    assert os.access(SCRIPT, os.X_OK)
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
