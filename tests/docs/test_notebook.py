"""The notebooks run from top to bottom, without a network, and give the outputs they are kept with.

The kept outputs are those of `python notebooks/execute.py`. The lecture's notebook has every step
of the lecture twice: written out, and as a call of the package.
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
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import mlpkern
from notebooks import execute

image = pytest.importorskip("matplotlib.image", reason="the notebooks draw")

KEPT = {path.stem: execute.read(path) for path in (execute.LECTURE, execute.EXERCISES)}
LECTURE = KEPT["makemore_mlp"]
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
# most 0.008 (an embedding in ten dimensions).
BRIGHTNESS = 0.02
SECONDS = 120  # of one core; uncontended it takes a fifth of that

# A step of the lecture, the first part of the ids of its cells, and what does it in one call.
STEPS = {
    "the dataset and its splits": ("splits", "lm.build_dataset"),
    "bigram recap": ("bigram", "lm.ngram"),
    "the architecture, drawn": ("architecture", "Picture"),
    "one-hot or lookup": ("one-hot", "mlpkern.embedding_gather"),
    "storage, views, strides": ("storage", "torch.cat"),
    "broadcasting of the bias": ("broadcasting", "mlpkern.linear_tanh"),
    "cross-entropy and overflow": ("overflow", "mlpkern.cross_entropy"),
    "training loop": ("loop", "mlpkern.train_steps"),
    "sweep of the learning rate": ("sweep", "lm.lr_finder"),
    "bigger model, bigger embedding": ("bigger", "lm.population"),
    "contexts that never occurred": ("unseen", "row_losses"),
    "search": ("search", "lm.Population"),
    "sampling": ("sampling", "lm.sample"),
}


def no_network(*_args, **_options):
    raise AssertionError("the notebook opens a socket")


def executed(name: str, folder: Path, patch: pytest.MonkeyPatch):
    """A notebook as it is after its run on one thread, the names left, and its seconds."""
    patch.chdir(folder)
    for variable in ("MLPKERN_NAMES", "MLPKERN_NOTEBOOK_STEPS"):
        patch.delenv(variable, raising=False)
    patch.setattr(socket, "socket", no_network)
    notebook = copy.deepcopy(KEPT[name])
    threads, began = torch.get_num_threads(), time.process_time()
    torch.set_num_threads(1)
    try:
        names = execute.run(notebook)
    finally:
        torch.set_num_threads(threads)
    return notebook, names, time.process_time() - began


def texts(notebook) -> list[str]:
    """All lines of text that the cells show."""
    lines = []
    for cell in execute.code_cells(notebook):
        for output in cell["outputs"]:
            lines += output.get("text") or output["data"].get("text/plain", [])
    return [line.rstrip() for line in lines]


def pictures(notebook) -> dict[str, np.ndarray]:
    """By the ids of their cells."""
    found = {}
    for cell in execute.code_cells(notebook):
        for output in cell["outputs"]:
            if png := output.get("data", {}).get("image/png"):
                found[cell["id"]] = image.imread(io.BytesIO(base64.b64decode(png)))
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
    line = re.sub(r"\b(RuntimeError): .*", r"\1", line)  # in the words of a version of torch
    if re.match("τ = |[^:]+…: ", line):  # from a trained model: one rounding changes a letter
        line = re.sub(r"(?<=: ).*", lambda names: ", " * names[0].count(", "), line)
    numbers = [
        float(number) / (100 if percent else 1)
        for number, percent in re.findall(rf"({NUMBER})( ?%)?", line)
    ]
    return re.sub(NUMBER, "#", line), numbers


def check_texts(now, kept):
    mine, others = (list(map(shape_and_numbers, texts(notebook))) for notebook in (now, kept))
    assert [shape for shape, _ in mine] == [shape for shape, _ in others]
    for (shape, some), (_, same) in zip(mine, others, strict=True):
        assert some == pytest.approx(same, abs=LOSS), shape


def check_pictures(now, kept):
    mine, others = pictures(now), pictures(kept)
    assert mine.keys() == others.keys()
    brightness = {name: fields(picture) for name, picture in others.items()}
    for name, picture in mine.items():
        assert picture.shape == others[name].shape
        distances = {other: np.abs(fields(picture) - b).mean() for other, b in brightness.items()}
        assert distances[name] < BRIGHTNESS, name
        assert min(distances, key=distances.get) == name


@on_cpu
def test_the_lecture_runs_as_kept_and_shows_what_it_says(tmp_path, monkeypatch):
    now, names, seconds = executed("makemore_mlp", tmp_path, monkeypatch)
    check_texts(now, LECTURE)
    check_pictures(now, LECTURE)
    assert seconds < SECONDS
    counting, rows, never = names["counting"], names["rows"], names["seen"] == 0
    small, wide, deep = (np.mean([dev for _, dev in pair]) for pair in names["fits"].values())
    assert abs(wide - small) < 0.03  # more units are no gain
    assert deep < min(small, wide) - 0.05  # more numbers a letter are one
    assert deep < min(counting.values()) - 0.01  # and beat counting with as much context
    assert names["finished"][0].dev.loss < deep - 0.01
    assert rows["MLP"][never].mean() < rows["4-gram"][never].mean() - 0.5


@on_cpu
def test_the_unsolved_exercises_run_as_kept(tmp_path, monkeypatch):
    now, _, seconds = executed("exercises", tmp_path, monkeypatch)
    check_texts(now, KEPT["exercises"])
    assert sum(line.startswith("not yet: ") for line in texts(now)) == 3
    assert seconds < SECONDS


@pytest.mark.parametrize("step", STEPS)
def test_each_step_of_the_lecture_is_there(step):
    part, call = STEPS[step]
    cells = [cell for cell in execute.code_cells(LECTURE) if re.match(rf"{part}(-|$)", cell["id"])]
    assert any(cell["outputs"] for cell in cells)
    assert any(f"{call}(" in "".join(cell["source"]) for cell in cells)


def test_what_of_a_line_may_differ():
    assert shape_and_numbers("D=2: dev 2.5 (7.0 %)") == ("D=2: dev # (# %)", [2.5, 0.07])
    assert shape_and_numbers("τ = 1.0: ab, c (3%)") == shape_and_numbers("τ = 1.0: a, bc (4%)")
    assert shape_and_numbers("names…: ab, c") == shape_and_numbers("names…: a, bc")
    assert shape_and_numbers("a  12.5 µs")[0] == shape_and_numbers("a     9.25 µs")[0]
    assert shape_and_numbers("rows 32")[0] != shape_and_numbers("rows 33")[0]


INSTALL = [sys.executable, "-m", "pip", "install", "-q"]


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Runs the first cell in ``notebooks`` of an empty folder; returns its commands for pip."""
    monkeypatch.delenv("MLPKERN_SOURCE", raising=False)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    commands = []
    monkeypatch.setattr(subprocess, "check_call", commands.append)

    def without(*missing: str) -> list[list[str]]:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name not in missing)
        execute.execute(execute.code_cells(LECTURE)[0], {})
        return commands

    return without


def test_the_first_cell_installs_what_is_missing(install, monkeypatch, tmp_path):
    assert install() == []
    assert install("matplotlib") == [[*INSTALL, "matplotlib"]]
    wheel = tmp_path / "notebooks" / "mlpkern-1.0-py3-none-any.whl"
    wheel.touch()
    assert install("mlpkern")[1:] == [[*INSTALL, str(wheel)]]
    (tmp_path / "mlpkern" / "lm").mkdir(parents=True)
    assert install("mlpkern", "matplotlib")[2:] == [[*INSTALL, str(tmp_path), "matplotlib"]]
    monkeypatch.setenv("MLPKERN_SOURCE", "somewhere")
    assert install("mlpkern")[3:] == [[*INSTALL, "somewhere"]]


def test_the_first_cell_says_what_to_do_where_nothing_is_found(install, tmp_path):
    with pytest.raises(ModuleNotFoundError, match=r"Put a file mlpkern-\*\.whl into") as raised:
        install("mlpkern")
    assert str(Path(tmp_path, "notebooks")) in str(raised.value)
    assert "MLPKERN_SOURCE" in str(raised.value)


@pytest.mark.parametrize("name", KEPT)
def test_it_is_kept_with_its_outputs(name):
    cells = execute.code_cells(KEPT[name])
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert "/tmp" not in "".join(texts(KEPT[name]))
    assert cells[0] == execute.code_cells(LECTURE)[0]
    assert (execute.FOLDER / f"{name}.ipynb").stat().st_size < 1_000_000
