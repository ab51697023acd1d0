"""Words from standard input, pipes and gzip files: read once, remembered as what they are."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading

import pytest
from support.command_line import fails
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.errors import DataError
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.words.word_file import recorded_source

FAST = ["--hidden", "8", "--embedding-dim", "3", "--steps", "20"]
TEXT = ("\n".join(make_words()) + "\n").encode()


def given(monkeypatch, content):
    """``content`` as standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("content", [TEXT, gzip.compress(TEXT)], ids=["plain", "gzip"])
def test_standard_input(tmp_path, monkeypatch, capsys, content):
    given(monkeypatch, content)
    assert lm.read_words("-") == make_words()
    given(monkeypatch, content)
    assert main(["data", "-", "--show", "0"]) == 0
    assert "data    standard input: 300 words" in capsys.readouterr().out
    given(monkeypatch, b"ok\nnot.good\n")
    assert "standard input, line 2: 'not.good'" in fails(capsys, "data", "-")
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input: is closed; give a file" in fails(capsys, "data", "-")


def test_a_run_from_a_pipe_asks_for_the_file(words, tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "run")
    given(monkeypatch, TEXT)
    assert main(["train", "-", *FAST, "--out", out]) == 0
    assert load_checkpoint(out).data["source"] == "standard input"
    capsys.readouterr()
    asked = "the words of this run came from standard input, which is read once; name a FILE"
    for command in (["evaluate", out], ["report", out], ["plot", out, "--what", "confusion"]):
        assert asked in fails(capsys, *command)
    assert asked in fails(capsys, "train", "--resume", out, "--steps", 30)
    assert main(["sample", out, "-n", "1"]) == 0
    assert f"is unknown: {asked}" in capsys.readouterr().err

    assert main(["evaluate", out, words, "--split", "dev"]) == 0
    (other := tmp_path / "other.txt").write_bytes(TEXT + b"abba\n")
    capsys.readouterr()
    error = fails(capsys, "train", "--resume", out, other, "--steps", 30)
    assert "not the words this run was trained on" in error
    assert main(["train", "--resume", out, words, "--steps", "30"]) == 0
    assert os.path.basename(load_checkpoint(out).data["source"]) == "words.txt"
    assert main(["evaluate", out, "--split", "dev"]) == 0  # the file is known from here on
    given(monkeypatch, TEXT)
    assert main(["train", "--resume", out, "-", "--steps", "40"]) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipes(tmp_path, capsys):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=[TEXT])
    writer.start()
    out = str(tmp_path / "run")
    assert main(["train", str(fifo), *FAST, "--out", out]) == 0
    writer.join()
    assert load_checkpoint(out).data["source"] == "a pipe"
    capsys.readouterr()
    assert "the words of this run came from a pipe" in fails(capsys, "evaluate", out)


@pytest.mark.parametrize("name", ["words.txt.gz", "words"])
def test_compressed_files(tmp_path, name, capsys):
    path = tmp_path / name  # the content decides, not the name
    path.write_bytes(gzip.compress(TEXT))
    assert lm.read_words(path) == make_words()
    out = str(tmp_path / "run")
    assert main(["train", str(path), *FAST, "--out", out]) == 0
    assert main(["evaluate", out, "--split", "dev"]) == 0
    path.write_bytes(TEXT)  # the same words
    assert main(["evaluate", out, "--split", "dev"]) == 0


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b[:300] + b"x" * 20 + b[320:],
                                    lambda b: b[:6], lambda b: b + b"more"])  # fmt: skip
def test_damaged_gzip_files(tmp_path, capsys, damage):
    path = tmp_path / "words.txt.gz"
    path.write_bytes(damage(gzip.compress(TEXT)))
    with pytest.raises(DataError, match="damaged or cut gzip file"):
        lm.read_words(path)
    assert f"{path}: damaged or cut gzip file: " in fails(capsys, "data", path)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="this system has no /dev/fd")
def test_descriptors_by_name(words):
    ours, theirs = os.pipe()
    try:
        assert recorded_source(f"/dev/fd/{ours}") == "a pipe"  # <(command) of a shell
    finally:
        os.close(ours)
        os.close(theirs)
    with open(words, "rb") as file:  # /dev/stdin of `< names.txt` is such a name
        assert recorded_source(f"/dev/fd/{file.fileno()}") == words
    assert recorded_source("-") == "standard input"
