"""Runs that are moved or given away: they find their words, and no file tells where it was made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.command_line import fails
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.saved import checkpoint
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.words.word_file import shareable

SMALL = ["--hidden", "8", "--embedding-dim", "3", "--steps", "20", "--threads", "1"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with data/words.txt, the current one."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "words.txt").write_text("\n".join(make_words()))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("absolute", [False, True])
def test_a_run_that_was_moved_with_its_words_finds_them(project, monkeypatch, capsys, absolute):
    words = Path("data/words.txt")
    assert main(["train", str(words.resolve() if absolute else words), *SMALL, "--out", "r/a"]) == 0
    assert "data/words.txt: 300 words" in capsys.readouterr().out
    for file in Path("r/a").iterdir():
        assert os.fsencode(project) not in file.read_bytes(), file
    there = project.rename(project.parent / "elsewhere")
    monkeypatch.chdir("/")
    assert main(["evaluate", str(there / "r/a"), "--split", "dev"]) == 0
    assert main(["train", "--resume", str(there / "r/a"), "--steps", "30"]) == 0
    assert load_checkpoint(there / "r/a").data["source"] == "data/words.txt"


def test_the_words_may_lie_beside_the_run_under_their_name(project, monkeypatch):
    assert main(["train", "data/words.txt", *SMALL, "--out", "run"]) == 0
    shutil.move("data/words.txt", "run/words.txt")
    Path("words.txt").write_text("others\n")  # of the same name, nearer: the digest decides
    monkeypatch.chdir("run")
    assert main(["evaluate", ".", "--split", "dev"]) == 0


def test_without_its_words_a_run_asks_for_them(project, capsys):
    assert main(["train", "data/words.txt", *SMALL, "--out", "run"]) == 0
    words = Path("data/words.txt").rename("other.txt")
    capsys.readouterr()
    asked = "a FILE with its words may follow RUN, as in mlpkern evaluate RUN FILE"
    for command in ("evaluate", "report"):
        assert f"data/words.txt: no such file; {asked}" in fails(capsys, command, "run")
    assert main(["evaluate", "run", str(words), "--split", "dev"]) == 0
    Path("data/words.txt").write_text("\n".join(make_words(seed=1)))
    assert "not the words this run was trained on (SHA-256" in (
        line := fails(capsys, "report", "run")
    )
    assert asked in line


def test_a_run_that_does_not_name_its_words(project):
    dataset = lm.build_dataset(make_words(), block_size=3)
    lm.Trainer.start(lm.TrainConfig(steps=3, hidden=(4,)), dataset, run="run").train()
    with pytest.raises(lm.DataError, match="the run does not name its words; a FILE"):
        lm.report("run")


def test_old_records_name_an_absolute_path(project, monkeypatch):
    words = project / "data" / "words.txt"
    assert main(["train", "data/words.txt", *SMALL, "--out", "run"]) == 0
    found = load_checkpoint("run")
    found.data["source"] = str(words)
    monkeypatch.setattr(checkpoint, "shareable", lambda record: record)  # as earlier versions did
    lm.save_checkpoint("run/model.safetensors", found)
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert load_checkpoint("run").data["source"] == str(words)
    assert main(["train", "--resume", "run", "--steps", "30"]) == 0
    assert load_checkpoint("run").data["source"] == "data/words.txt"


def test_what_files_say_of_an_absolute_path(project, monkeypatch):
    words = str(project / "data" / "words.txt")

    def kept(file):
        return shareable({"source": file, "words": 300})["source"]

    assert kept(words) == "data/words.txt"
    assert kept("a pipe") == "a pipe"
    (project / "sub").mkdir()
    monkeypatch.chdir("sub")
    assert kept(words) == "../data/words.txt"
    assert kept(str(project / "home" / "ann" / "words.txt")) == "words.txt"
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(project))
    assert kept(words) == "~/data/words.txt"
    monkeypatch.setenv("HOME", "/nowhere")
    assert kept(words) == words.lstrip("/")
