"""Output that fails or cannot be encoded changes nothing about the work of a command."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest
from support.lm.words import make_words

from mlpkern.cli import main
from mlpkern.lm.saved.checkpoint import load_checkpoint

FAST = [
    "--hidden", "8", "--embedding-dim", "3", "--steps", "40", "--log-every", "10",
    "--eval-every", "0",
]  # fmt: skip


class Failing(io.TextIOBase):
    """A stream whose writes raise; nothing ever arrives."""

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    def isatty(self):
        return True  # a terminal, for the bar

    def flush(self):
        raise self.error


ERRORS = [
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    ValueError("I/O operation on closed file"),
]


def console(encoding):
    """A terminal of this encoding, strict as Python makes it, and what it got."""
    raw = io.BytesIO()
    return io.TextIOWrapper(raw, encoding=encoding, line_buffering=True), raw


@pytest.fixture
def run(words, tmp_path, capsys):
    """A finished run on words with letters that ASCII and Windows-1252 lack."""
    path = tmp_path / "wörter-ж.txt"
    text = "\n".join(make_words(alphabet="abcdéжµ"))
    path.write_text(text, encoding="utf-8")
    out = tmp_path / "läufe" / "ж"
    assert main(["train", str(path), *FAST, "--out", str(out)]) == 0
    capsys.readouterr()
    return str(out)


# outputs that fail


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__ + str(e.args[0])[:3])
@pytest.mark.parametrize("both", [False, True])
def test_a_training_goes_on_without_its_output(words, tmp_path, monkeypatch, error, both):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Failing(error))
    monkeypatch.setattr(sys, "stderr", Failing(error) if both else told)
    out = tmp_path / "run"
    assert main(["train", words, *FAST, "--out", str(out)]) == 0
    assert load_checkpoint(out).step == 40
    assert (out / "summary.json").is_file()
    if isinstance(error, BrokenPipeError):
        assert told.getvalue() == ""  # `mlpkern train | head`: no surprise
    elif not both:
        why = getattr(error, "strerror", None) or error
        assert told.getvalue() == f"mlpkern train: standard output: {why}; the work goes on\n"


@pytest.mark.parametrize("arguments", [["sample"], ["evaluate"], ["data"], ["info"]])
def test_a_command_that_only_prints_ends(run, monkeypatch, arguments):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    arguments += [run] if arguments[0] in ("sample", "evaluate") else []
    monkeypatch.setattr(sys, "stdout", Failing(ERRORS[0]))
    assert main(arguments) == 1
    assert told.getvalue() == ""
    monkeypatch.setattr(sys, "stdout", Failing(ERRORS[1]))
    assert main(arguments) == 1
    assert told.getvalue() == f"mlpkern {arguments[0]}: error: {ERRORS[1]}\n"


@pytest.mark.parametrize("command", ["plot", "report", "compare", "find-lr"])
def test_files_are_written_although_nobody_reads(run, tmp_path, monkeypatch, command):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    out = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "stdout", Failing(ERRORS[0]))
    arguments = {
        "plot": [run, "--what", "lr", "--out", out],
        "report": [run, "--out", out],
        "compare": [run, run, "--out", out],
        "find-lr": ["--steps", 20, "--hidden", 8, "--out", tmp_path / "lr.csv", "--png", out],
    }[command]
    code = main([command, *map(str, arguments)])
    assert code == 0 or command == "find-lr"  # which may find no valley in 20 steps
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_streams_that_are_not_there(words, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # pythonw, or `>&-`
    monkeypatch.setattr(sys, "stderr", None)
    out = tmp_path / "run"
    assert main(["train", words, *FAST, "--out", str(out)]) == 0
    assert main(["sample", str(out)]) == 0
    assert main(["evaluate", str(tmp_path / "absent")]) == 2
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    assert (sys.stdout, sys.stderr) == (None, None)
    assert load_checkpoint(out).step == 40


def test_streams_are_given_back_as_they_were(run, monkeypatch):
    ours, _ = console("ascii")
    monkeypatch.setattr(sys, "stdout", ours)
    assert main(["sample", run, "-n", "3"]) == 0
    assert sys.stdout is ours
    assert ours.errors == "strict"


# encodings


@pytest.mark.parametrize(
    ("command", "encoding"),
    [
        *[(name, "ascii") for name in ("sample", "evaluate", "report", "compare", "data", "ngram")],
        *[(name, "ascii") for name in ("find-lr", "train", "plot", "sweep", "info")],
        ("sample", "cp1252"), ("train", "cp1252"),
    ],
)  # fmt: skip
def test_consoles_of_other_encodings(run, tmp_path, monkeypatch, command, encoding):
    """The commands end well; with UTF-8 they print the same, but for the escapes."""
    file = str(tmp_path / "wörter-ж.txt")
    arguments = {
        "sample": [run, "-n", "30", "--prefix", "éж"],
        "evaluate": [run, "--split", "dev"],
        "report": [run, "--out", str(tmp_path / "report-ж.png"), "--force"],
        "compare": [run, run],
        "data": [file],
        "ngram": [file, "-n", "2", "--sample", "10"],
        "find-lr": [file, "--steps", "200", "--hidden", "8", "--high", "100"],
        "train": [file, *FAST, "--out", str(tmp_path / "another-ж"), "--force"],
        "plot": [run, "--what", "lr"],
        "sweep": [file, "--trials", "1", "--steps", "10", "--hidden", "8", "--block-size", "3",
                  "--embedding-dim", "3", "--out", str(tmp_path / f"sweep-ж-{encoding}")],
        "info": [],
    }[command]  # fmt: skip
    if command in ("plot", "report"):
        pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    if command == "sweep":
        pytest.importorskip("optuna", reason="a sweep needs optuna")
    stream, raw = console(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([command, *arguments]) == 0
    printed = raw.getvalue().decode(encoding)
    if command in ("sample", "data", "ngram", "train", "find-lr", "sweep"):
        assert "\\u0436" in printed  # ж
    if command == "sample":
        assert printed.count("\n") == 30
        assert all(line.startswith(("é\\u0436", "\\xe9\\u0436")) for line in printed.splitlines())
    if command == "train":
        assert (" µs a step" if encoding == "cp1252" else " \\xb5s a step") in printed


def test_file_names_that_are_not_utf8(tmp_path, monkeypatch, capsysbinary):
    name = os.fsdecode(b"w\xf6rter.txt")
    monkeypatch.chdir(tmp_path)
    try:
        with open(name, "w", encoding="utf-8") as file:
            file.write("\n".join(make_words()))
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    assert main(["train", name, *FAST, "--out", "run"]) == 0
    assert b"w\\udcf6rter.txt: 300 words" in capsysbinary.readouterr().out
    assert main(["evaluate", "run", "--split", "dev"]) == 0
    os.remove(name)
    capsysbinary.readouterr()
    assert main(["evaluate", "run"]) == 2
    assert b"w\\udcf6rter.txt: no such file" in capsysbinary.readouterr().err
    folder = os.fsdecode(b"l\xe4uf")  # where no checkpoint can lie
    for command, named in (["train", "--out", folder], b"--out"), (["evaluate", folder], b"RUN"):
        with pytest.raises(SystemExit):
            main(command)
        error = capsysbinary.readouterr().err
        assert named + b": expected a name in UTF-8, got 'l\\udce4uf'" in error


# whole processes: what only the end of an interpreter and real descriptors show


def test_pipes_and_closed_descriptors_of_a_process(words, tmp_path):
    command = [sys.executable, "-m", "mlpkern", "train", words, *FAST, "--threads", "1", "--out"]
    ours, theirs = os.pipe()
    os.close(ours)  # a reader that is gone before the first line
    done = subprocess.run(
        [*command, tmp_path / "a"], stdout=theirs, stderr=subprocess.PIPE, text=True
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")
    script = '"$@" >&- 2>&- <&-'
    assert subprocess.run(["sh", "-c", script, "sh", *command, tmp_path / "b"]).returncode == 0
    for name in ("a", "b"):
        assert load_checkpoint(tmp_path / name).step == 40
        log = (tmp_path / name / "log.csv").read_text(encoding="utf-8")
        assert log.startswith("step,lr,")
        assert log.count("\n") == 5  # nothing that was printed went into a file
