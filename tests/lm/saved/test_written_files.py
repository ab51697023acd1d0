"""What is written beside checkpoints: log, JSON, the download; what damage of them is found."""

from __future__ import annotations

import http.client
import json
import math
import os
import urllib.request

import pytest

from mlpkern.lm.atomic_write import append_lines, write_bytes, write_json
from mlpkern.lm.errors import CheckpointError, DataError, WriteError
from mlpkern.lm.saved.log import LogRow, append_rows, read_log, truncate_log
from mlpkern.lm.words import download

HEAD = "step,lr,train_loss,dev_loss,seconds\n"

# the log


@pytest.mark.parametrize("torn", ["", "step,lr", HEAD, HEAD + "10,0.1,2.5", HEAD + "\x00" * 9])
def test_a_row_is_never_glued_to_a_torn_line(tmp_path, torn):
    path = tmp_path / "log.csv"
    path.write_text(torn)
    append_rows(path, [LogRow(20, 0.1, 2.5, None, 1.0)])
    assert path.read_text() == HEAD + "20,0.1,2.500000,,1.000\n"
    assert read_log(path) == [LogRow(20, 0.1, 2.5, None, 1.0)]


def test_the_end_of_long_lines_is_found(tmp_path):
    path = tmp_path / "lines"
    long = b"x" * 200_000 + b"\n"
    append_lines(path, long)
    with path.open("ab") as file:
        file.write(b"y" * 300_000)
    append_lines(path, b"z\n")
    assert path.read_bytes() == long + b"z\n"


@pytest.mark.parametrize(
    "row",
    [
        "15,0.1,2.5,,3.0",  # goes back
        "20,0.1,2.5,,3.0",  # twice
        "30,0.1,2.5,,1.0",  # time goes back
        "30,0.1,nan,,3.0",
        "30,0.1,-2.5,,3.0",
        "30,inf,2.5,,3.0",
        "30,0.1,2.5,-1,3.0",
        "30,0.1,2.5,,3.0,4",
        "3O,0.1,2.5,,3.0",
        "",
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path, row):
    path = tmp_path / "log.csv"
    path.write_text(HEAD + f"10,0.1,2.6,,1.0\n20,0.1,2.5,2.6,2.0\n{row}\n40,0.1,2.4,,4.0\n")
    with pytest.raises(CheckpointError, match=r"log.csv, line 4: ") as error:
        read_log(path)
    assert "\n" not in str(error.value)


def test_rows_are_dropped_without_writing_the_others_again(tmp_path):
    path = tmp_path / "log.csv"
    append_rows(path, [LogRow(k, 0.1, 2.5, None, 1.0) for k in (10, 20, 30)])
    inode, whole = path.stat().st_ino, path.read_bytes()
    truncate_log(path, 30)
    assert path.read_bytes() == whole
    truncate_log(path, 25)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:3])
    truncate_log(path, 0)
    assert path.read_text() == HEAD
    assert path.stat().st_ino == inode  # no room on the disk was needed
    truncate_log(tmp_path / "absent", 5)
    assert not (tmp_path / "absent").exists()


# JSON


def test_json_has_numbers_that_every_reader_knows(tmp_path):
    path = tmp_path / "x.json"
    values = {"a": math.nan, "b": [math.inf, 1.5, {"c": -math.inf}], "d": (1, None, "NaN", True)}
    write_json(path, values)

    def refuse(word):
        raise AssertionError(word)

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"a": "nan", "b": ["inf", 1.5, {"c": "-inf"}], "d": [1, None, "NaN", True]}
    assert float(found["b"][0]) == math.inf


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "x"
    write_bytes(path, b"old")
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert path.read_bytes() == b"old"
    with pytest.raises(WriteError, match="x/y: cannot be written: Not a directory") as error:
        write_bytes(path / "y", b"")
    assert error.value.wrong_place
    assert isinstance(error.value, CheckpointError)
    assert os.listdir(tmp_path) == ["x"]


# the download


def test_an_answer_that_breaks_off_is_one_line(tmp_path, monkeypatch):
    def broken(*_args, **_options):
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setenv("MLPKERN_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", broken)
    with pytest.raises(DataError, match=r"cannot download .*IncompleteRead") as error:
        download.makemore_names()
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named_once(tmp_path, monkeypatch):
    source = tmp_path / "names.txt"
    source.write_text("emma\n")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLPKERN_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(download, "MAKEMORE_URL", source.as_uri())
    monkeypatch.setattr(download, "MAKEMORE_SHA256", download._digest(source.read_bytes()))
    with pytest.raises(WriteError) as error:
        download.makemore_names()
    path = tmp_path / "file" / "cache" / "makemore-names.txt"
    assert str(error.value) == (
        f"{path}: cannot be written: Not a directory; set MLPKERN_CACHE to a writable folder"
    )
