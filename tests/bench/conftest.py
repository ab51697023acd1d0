"""The fixture of the tests of bench/gpu.sh."""

from __future__ import annotations

import json
import os
import signal

import pytest
from support.bench.gpu_script import FAKE_PYTHON, FAKE_SANITIZER

from bench.gpu import prebuilt
from bench.gpu import stages as gpu_stages
from bench.gpu import work as gpu_work


@pytest.fixture
def gpu_sh(tmp_path, monkeypatch, capsys):
    """Runs the stages: the files of each, the exit status, the calls of Python, the text."""
    tools = {"python": FAKE_PYTHON, "compute-sanitizer": FAKE_SANITIZER, "nvidia-smi": "#!/bin/sh"}
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(prebuilt, "take", lambda: "taken")
    monkeypatch.setattr(gpu_work, "GRACE_S", 1)
    for name, value in {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": str(tmp_path / "python"),
        "OUT": str(tmp_path / "out"),
        "CALLS": str(tmp_path / "calls"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "PYTHONUNBUFFERED": "",
        "RECORD": "",
    }.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGTERM)

    def call(*names, fake="", seconds="", summary="ERROR SUMMARY: 0 errors"):
        (tmp_path / "calls").write_text("")
        monkeypatch.setenv("MLPKERN_GPU_SECONDS", str(seconds))
        monkeypatch.setenv("FAKE", fake)
        monkeypatch.setenv("SUMMARY", summary)
        status = gpu_stages.main(list(names))
        found = {
            path.parent.name: json.loads(path.read_text())
            for path in (tmp_path / "out").glob("*/result.json")
        }
        return found, status, (tmp_path / "calls").read_text(), capsys.readouterr().out

    yield call
    signal.signal(signal.SIGTERM, before)
