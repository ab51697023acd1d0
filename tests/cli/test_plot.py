"""The command ``plot`` and the picture of ``find-lr``: files, their places, errors."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import pytest
from support.command_line import fails
from support.lm.words import make_words
from support.pictures import png_size

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.saved.run_folder import PICTURES

KINDS = ["embedding", "loss", "lr", "confusion"]


@pytest.fixture
def run(words, tmp_path, capsys):
    """The folder of a short run."""
    out = tmp_path / "run"
    sizes = ["--hidden", "8", "--embedding-dim", "3", "--steps", "40", "--log-every", "10"]
    assert main(["train", words, *sizes, "--eval-every", "20", "--out", str(out)]) == 0
    capsys.readouterr()
    return out


def test_all_pictures_go_into_the_folder_and_may_be_replaced(run, capsys):
    before = set(os.listdir(run))
    (run / "lr.png").write_bytes(b"old")
    assert main(["plot", str(run)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"saved {run / kind}.png" for kind in KINDS]
    assert png_size((run / "lr.png").read_bytes()) == (1200, 600)
    assert set(os.listdir(run)) - before == {f"{kind}.png" for kind in KINDS}
    assert set(KINDS) < set(PICTURES)
    assert png_size((run / "loss.png").read_bytes()) == (1200, 750)


def test_one_picture_where_the_user_says(run, tmp_path, capsys):
    out = tmp_path / "new" / "rate.png"
    options = ["--what", "lr", "--out", str(out)]
    assert main(["plot", str(run / "model.safetensors"), *options]) == 0
    assert png_size(out.read_bytes()) == (1200, 600)
    out.write_bytes(b"mine")
    assert f"{out}: exists; replace it with --force" in fails(capsys, "plot", run, *options)
    assert out.read_bytes() == b"mine"
    assert main(["plot", str(run), *options, "--force"]) == 0
    assert out.read_bytes() != b"mine"


def test_the_title_names_the_run_its_sizes_and_its_dev_loss(run):
    folder = lm.RunFolder.holding(run)
    last, best = (lm.load_checkpoint(run, checkpoint=kind) for kind in ("last", "best"))
    dev = json.loads((run / "summary.json").read_text())["dev"]["loss"]
    said = f"run: T=3 D=3 H=8 V={len(last.vocab)}, step 40, dev {dev:.4f}"
    assert lm.plots.run_caption(folder, last) == said
    early = dataclasses.replace(best, step=20, dev_loss=2.5)
    assert lm.plots.run_caption(folder, early).endswith(", step 20 of 40, dev 2.5000")
    assert lm.plots.run_caption(folder, early, 2.25).endswith(", dev 2.2500")
    (run / "summary.json").unlink()
    assert lm.plots.run_caption(folder, last).endswith(", step 40")
    renamed = run.with_name("x" * 99)
    run.rename(renamed)
    named = lm.plots.run_caption(lm.RunFolder.holding(renamed), last)
    assert named.startswith("x" * 29 + "…: T=3 ")


def test_a_word_model_shows_its_mistakes(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the w{i} of w{i + 1} ." for i in range(110) for _ in range(3)))
    sizes = ["--hidden", "8", "--embedding-dim", "3", "--steps", "300"]
    out = tmp_path / "words"
    level = ["--level", "word", "--min-count", "1"]
    assert main(["train", str(text), *level, *sizes, "--out", str(out)]) == 0
    monkeypatch.setattr("mlpkern.lm.plots.confusion_plot", None)
    monkeypatch.setattr("mlpkern.cli.commands.plot.MOST_IN_MATRIX", 100)
    assert main(["plot", str(out), "--what", "confusion"]) == 0
    assert png_size((out / "confusion.png").read_bytes())[0] == 1350


def test_a_new_run_in_the_folder_removes_the_pictures_of_the_old(run, words):
    (run / "notes.png").write_bytes(b"mine")
    main(["plot", str(run), "--what", "lr"])
    assert (run / "lr.png").exists()
    assert main(["train", words, "--steps", "5", "--out", str(run), "--force"]) == 0
    assert not (run / "lr.png").exists()
    assert (run / "notes.png").exists()


def test_without_its_words_a_run_still_has_the_pictures_that_need_none(run, words, capsys):
    os.rename(words, words + ".moved")
    for kind in ("embedding", "lr", "loss"):
        assert main(["plot", str(run), "--what", kind]) == 0
    assert (
        "words.txt: no such file; a FILE with its words may follow RUN" in capsys.readouterr().out
    )
    assert "no such file" in fails(capsys, "plot", run, "--what", "confusion")
    assert main(["plot", str(run), words + ".moved", "--what", "confusion"]) == 0


def test_find_lr_draws_its_sweep(words, tmp_path, capsys):
    png = tmp_path / "lr.png"
    options = ["--hidden", "8", "--embedding-dim", "3", "--steps", "60", "--seeds", "3"]
    assert main(["find-lr", words, *options, "--png", str(png)]) == 0
    assert f"saved in {png}" in capsys.readouterr().out
    assert png_size(png.read_bytes()) == (1200, 1200)
    assert "choose another --png" in fails(capsys, "find-lr", words, "--png", png)


def test_errors(run, words, tmp_path, capsys, monkeypatch):
    assert "no such run folder" in fails(capsys, "plot", tmp_path / "absent")
    error = fails(capsys, "plot", run, "--out", tmp_path / "x.png")
    assert "--out names one file; choose one picture with --what" in error
    one = ["plot", run, "--what", "lr", "--out"]
    assert "is a folder" in fails(capsys, *one, tmp_path)
    assert f"{words} is not a folder" in fails(capsys, *one, words + "/deep/x.png")
    other = tmp_path / "other.txt"
    other.write_text("\n".join(make_words(alphabet="wxyz")))
    assert "another vocabulary" in fails(capsys, "plot", run, other, "--what", "confusion")
    (run / "log.csv").write_text("step,lr\n1,2\n")
    assert "line 1: expected step,lr,train_loss" in fails(capsys, "plot", run, "--what", "loss")
    content = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(content[:-1])
    assert "damaged or no safetensors file" in fails(capsys, "plot", run)
    (run / "model.safetensors").write_bytes(content)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'mlpkern[plots]'" in fails(capsys, "plot", run, "--what", "lr")
    assert not (run / "lr.png").exists()
    with pytest.raises(lm.MissingPackageError):
        lm.plots.require_matplotlib()


def test_a_disk_that_refuses_is_one_line(run, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    error = fails(capsys, "plot", run, "--what", "lr", "--out", tmp_path / "x.png")
    assert f"{tmp_path / 'x.png'}: cannot be written: Permission denied" in error
