"""The notebook runs from top to bottom, with short trainings and without a network.

It uses no magics, so its cells are executed here as a notebook does, in one namespace and with the
value of a last expression displayed, which needs no packages for notebooks.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib", reason="the notebook draws")

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "makemore_mlp.ipynb"
STEPS = 300  # of a training: enough for each to be better than at its start


def cells(kind):
    every = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in every if cell["cell_type"] == kind]


def execute(source, name, namespace):
    """Executes a cell; returns the value of its last line if that is an expression."""
    tree = ast.parse(source)
    shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if shown is not None:
        return eval(compile(ast.Expression(shown.value), name, "eval"), namespace)
    return None


def no_network(*_args, **_options):
    raise AssertionError("the notebook opens a socket")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The names that the cells have left, and the pictures they displayed."""
    folder = tmp_path_factory.mktemp("notebook")
    namespace, pictures = {"__name__": "__main__"}, []
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLPKERN_NOTEBOOK_STEPS", str(STEPS))
        patch.delenv("MLPKERN_NAMES", raising=False)
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(socket, "socket", no_network)
        torch.set_num_threads(1)
        try:
            for i, source in enumerate(cells("code"), 1):
                value = execute(source, f"{NOTEBOOK.name}, code cell {i}", namespace)
                if hasattr(value, "_repr_png_"):
                    pictures.append(value._repr_png_())
        finally:
            torch.set_num_threads(threads)
    return namespace, pictures


def test_every_cell_runs_and_the_pictures_are_drawn(executed):
    _, pictures = executed
    assert len(pictures) == 5  # finder, report, two embeddings, comparison
    assert all(png.startswith(b"\x89PNG\r\n\x1a\n") and len(png) > 5_000 for png in pictures)


def test_the_trainings_learn(executed):
    names, _ = executed
    guessing = math.log(names["V"])
    assert names["learned"].floor < names["learned"].loss < names["learned"].losses[0]
    assert [trained.dev.loss < guessing for trained in names["results"]] == [True] * 4
    assert names["overfitted"].splits["train"].loss < guessing
    assert list(names["reports"]) == ["D=2 H=100", "D=2 H=300", "D=10 H=200"]
    for report in names["reports"].values():
        assert report.rows[-1].step == STEPS
        assert report.rows[-1].train_loss < report.rows[0].train_loss


def test_longer_ngrams_fit_train_better_and_from_some_length_dev_worse(executed):
    names, _ = executed
    on_train = [gram.loss(names["splits"]["train"]) for gram in names["ngrams"].values()]
    on_dev = list(names["counting"].values())
    assert on_train == sorted(on_train, reverse=True)
    assert min(on_dev) < on_dev[-1]


def test_the_first_cell_installs_what_is_missing(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "check_call", commands.append)
    monkeypatch.setenv("MLPKERN_SOURCE", "somewhere")
    monkeypatch.chdir(tmp_path)
    execute(cells("code")[0], "first cell", {})
    (tmp_path / "mlpkern" / "lm").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    execute(cells("code")[0], "first cell", {})
    install = [sys.executable, "-m", "pip", "install", "-q"]
    assert commands == [
        [*install, "somewhere", "matplotlib"],
        [*install, str(tmp_path), "matplotlib"],
    ]


def test_it_is_kept_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
