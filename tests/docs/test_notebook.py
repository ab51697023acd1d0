"""The notebook runs from top to bottom, without a network, and gives the outputs it is kept with.

The kept outputs are those of `python notebooks/execute.py`.
"""

from __future__ import annotations

import base64
import copy
import importlib.util
import io
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import mlpkern

image = pytest.importorskip("matplotlib.image", reason="the notebook draws")

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)

KEPT = execute.read()
on_cpu = pytest.mark.skipif(
    not mlpkern.explain("linear_tanh", torch.ones(2, 3), torch.ones(4, 3)).startswith(
        "linear_tanh runs on cpu"
    ),
    reason="the outputs are those of the backend cpu",
)

# Kernels of other instruction sets round differently, and training amplifies that: after 40,000
# steps losses differ by up to 0.002 between AVX-512, AVX2 and baseline. Two seeds differ by more.
LOSS = 0.01
# Mean difference of brightness over 16 by 16 fields, 0 to 1. Between the instruction sets it is at
# most 0.008 (an embedding in ten dimensions); two pictures of different kinds differ by 0.024.
BRIGHTNESS = 0.02


def no_network(*_args, **_options):
    raise AssertionError("the notebook opens a socket")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The notebook, executed now on one thread."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = copy.deepcopy(KEPT)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("MLPKERN_NAMES", "MLPKERN_NOTEBOOK_STEPS"):
            patch.delenv(name, raising=False)
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(socket, "socket", no_network)
        torch.set_num_threads(1)
        try:
            execute.run(notebook)
        finally:
            torch.set_num_threads(threads)
    return notebook


def texts(notebook) -> list[str]:
    """All lines of text that the cells show."""
    lines = []
    for cell in execute.code_cells(notebook):
        for output in cell["outputs"]:
            lines += output.get("text") or output["data"].get("text/plain", [])
    return [line.rstrip() for line in lines]


def pictures(notebook) -> list[np.ndarray]:
    found = []
    for cell in execute.code_cells(notebook):
        for output in cell["outputs"]:
            if png := output.get("data", {}).get("image/png"):
                found.append(image.imread(io.BytesIO(base64.b64decode(png))))
    return found


def fields(picture: np.ndarray) -> np.ndarray:
    """(16, 16): the mean brightness of each field."""
    gray = picture[..., :3].mean(-1)
    rows = np.array_split(gray, 16, axis=0)
    return np.array([[part.mean() for part in np.array_split(row, 16, axis=1)] for row in rows])


NUMBER = r"\d+\.\d+(?![\d.])"


def shape_and_numbers(line: str) -> tuple[str, list[float]]:
    """The text of a line without what may differ, and its numbers, which may differ a little."""
    line = re.sub(r"^[\d.]+\S* · ", "", line)  # the version of torch
    line = re.sub(r" +[\d.]+ ([mµ]s)\b", r" \1", line)  # a time
    line = re.sub(r" +\d+e[-+]\d+", "", line)  # a rounding error; the notebook asserts its bound
    if re.match(
        "τ = |[a-z]+…: ", line
    ):  # names from a trained model: one rounding changes a letter
        line = re.sub(r"(?<=: ).*", lambda names: ", " * names[0].count(", "), line)
    numbers = [
        float(number) / (100 if percent else 1)
        for number, percent in re.findall(rf"({NUMBER})( ?%)?", line)
    ]
    return re.sub(NUMBER, "#", line), numbers


@on_cpu
def test_the_texts_are_those_that_are_kept(fresh):
    now, kept = (list(map(shape_and_numbers, texts(notebook))) for notebook in (fresh, KEPT))
    assert [shape for shape, _ in now] == [shape for shape, _ in kept]
    for (shape, mine), (_, others) in zip(now, kept, strict=True):
        assert mine == pytest.approx(others, abs=LOSS), shape


@on_cpu
def test_the_pictures_are_those_that_are_kept(fresh):
    now, kept = pictures(fresh), pictures(KEPT)
    assert len(now) == 5  # finder, report, two embeddings, comparison
    assert [picture.shape for picture in now] == [picture.shape for picture in kept]
    brightness = [fields(picture) for picture in kept]
    for i, picture in enumerate(map(fields, now)):
        distances = [np.abs(picture - other).mean() for other in brightness]
        assert distances[i] < BRIGHTNESS
        assert all(d > BRIGHTNESS for j, d in enumerate(distances) if {i, j} - {2, 3} and i != j)


def test_what_of_a_line_may_differ():
    assert shape_and_numbers("D=2: dev 2.5 (7.0 %)") == ("D=2: dev # (# %)", [2.5, 0.07])
    assert shape_and_numbers("τ = 1.0: ab, c (3%)") == shape_and_numbers("τ = 1.0: a, bc (4%)")
    assert shape_and_numbers("a  12.5 µs")[0] == shape_and_numbers("a     9.25 µs")[0]
    assert shape_and_numbers("rows 32")[0] != shape_and_numbers("rows 33")[0]


def test_the_first_cell_installs_what_is_missing(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "check_call", commands.append)
    monkeypatch.setenv("MLPKERN_SOURCE", "somewhere")
    monkeypatch.chdir(tmp_path)
    first = execute.code_cells(KEPT)[0]
    execute.execute(first, "first cell", {})
    (tmp_path / "mlpkern" / "lm").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    execute.execute(first, "first cell", {})
    install = [sys.executable, "-m", "pip", "install", "-q"]
    assert commands == [
        [*install, "somewhere", "matplotlib"],
        [*install, str(tmp_path), "matplotlib"],
    ]


def test_it_is_kept_with_its_outputs():
    cells = execute.code_cells(KEPT)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert "/tmp" not in "".join(texts(KEPT))
    assert execute.NOTEBOOK.stat().st_size < 1_000_000
