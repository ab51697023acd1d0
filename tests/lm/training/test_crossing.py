"""How much of the package a chunk of the engine `run` passes through, and when it looks again."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from support.lm.training import trainer

import mlpkern

ROOT = str(Path(mlpkern.__file__).parent)
FILES, CALLS = 8, 25  # at most; a reader follows a batch through them


def crossed(run):
    """The files of the package that ``run()`` calls into, and its calls from one into another."""
    files, calls = set(), []

    def profile(frame, event, _):
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(ROOT):
            files.add(name)
            caller = frame.f_back.f_code.co_filename
            if caller.startswith(ROOT) and caller != name:
                calls.append(f"{caller} -> {name}: {frame.f_code.co_name}")

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return files, calls


def test_a_chunk_passes_few_files_and_few_calls_between_them():
    with mlpkern.use_backend(None):
        run = trainer("run")
        run.engine.run_chunk(run.state, 5)
        files, calls = crossed(lambda: run.engine.run_chunk(run.state, 64))
    assert len(files) <= FILES, sorted(files)
    assert len(calls) <= CALLS, calls


def test_a_parameter_that_was_replaced_between_chunks_is_trained():
    run = trainer("run")
    run.engine.run_chunk(run.state, 5)
    old = run.state.model.output.weight
    run.state.model.output.weight = torch.nn.Parameter(old.detach().clone())
    before = old.detach().clone()
    run.engine.run_chunk(run.state, 5)
    assert torch.equal(old, before)
    assert not torch.equal(run.state.model.output.weight, before)
