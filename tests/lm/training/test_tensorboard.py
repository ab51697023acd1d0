"""TensorBoard: the rows of the log as scalars, resuming, a missing package."""

from __future__ import annotations

import sys
import types

import pytest
from support.command_line import fails

from mlpkern.cli import main
from mlpkern.lm.saved.log import LogRow, read_log
from mlpkern.lm.training.tensorboard import TensorBoardProgress, write_model

FAST = ["--hidden", "8", "--embedding-dim", "3", "--log-every", "10", "--eval-every", "20"]


class Writer:
    """What `TensorBoardProgress` needs of a SummaryWriter, kept in memory."""

    made: list[Writer] = []  # noqa: RUF012

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Writer.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


@pytest.fixture
def made(monkeypatch):
    """The writers made, in place of the package."""
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def expected(rows):
    for row in rows:
        yield "loss/train", row.train_loss, row.step
        if row.dev_loss is not None:
            yield "loss/dev", row.dev_loss, row.step
        yield "learning rate", row.lr, row.step


def same(scalars, rows):
    for (name, value, step), (name2, value2, step2) in zip(scalars, expected(rows), strict=True):
        assert (name, step) == (name2, step2)
        assert value == pytest.approx(value2, abs=1e-6)


def test_the_rows_of_the_log_are_written_and_shown(words, tmp_path, capsys, made):
    out = tmp_path / "run"
    assert main(["train", words, *FAST, "--steps", "40", "--tensorboard", "--out", str(out)]) == 0
    assert "step 40/40" in capsys.readouterr().out
    (writer,) = made
    assert (writer.folder, writer.purge_step, writer.closed) == (str(out), None, True)
    same(writer.scalars, read_log(out / "log.csv"))

    assert main(["train", "--resume", str(out), "--steps", "60", "--tensorboard"]) == 0
    assert made[1].purge_step == 41
    same(made[1].scalars, read_log(out / "log.csv")[4:])


def test_event_files_hold_the_log_and_go_with_the_run(words, tmp_path):
    pytest.importorskip("tensorboard", reason="the event files need the package tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    command = ["train", words, *FAST, "--steps", "20", "--out", str(out)]
    assert main([*command, "--tensorboard"]) == 0
    events = EventAccumulator(str(out))
    events.Reload()
    rows = read_log(out / "log.csv")
    assert sorted(events.Tags()["scalars"]) == ["learning rate", "loss/dev", "loss/train"]
    found = [(event.step, event.value) for event in events.Scalars("loss/train")]
    for (step, value), row in zip(found, rows, strict=True):
        assert step == row.step
        assert value == pytest.approx(row.train_loss, abs=1e-6)
    assert main([*command, "--force"]) == 0  # another run in the same folder
    assert not list(out.glob("events.*"))


def test_without_the_package_nothing_is_trained(words, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    out = tmp_path / "run"
    error = fails(capsys, "train", words, "--tensorboard", "--out", out)
    assert "pip install 'mlpkern[tensorboard]'" in error
    assert not out.exists()


def test_a_folder_that_refuses_is_one_line(words, tmp_path, capsys, made, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Writer, "__init__", refuse)
    out = tmp_path / "run"
    error = fails(capsys, "train", words, *FAST, "--tensorboard", "--out", out)
    assert f"{out}: cannot be written: Permission denied" in error


def test_it_does_not_go_with_a_check_that_writes_nothing(words, capsys):
    error = fails(capsys, "train", words, "--overfit-batch", "--tensorboard")
    assert "--tensorboard does not go with --overfit-batch" in error


def test_what_is_shown_is_passed_on(made, tmp_path):
    calls = []

    class Shown:
        def advance(self, steps):
            calls.append(steps)

        def row(self, row):
            calls.append(row)

        def close(self):
            calls.append("close")

    progress = TensorBoardProgress(tmp_path, Shown())
    progress.advance(7)
    progress.close()
    assert calls == [7, "close"]


def test_a_model_of_many_is_a_run_with_its_settings(tmp_path):
    pytest.importorskip("tensorboard", reason="the event files need the package tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    rows = [LogRow(10, 0.1, 3.2, None, 0.1), LogRow(20, 0.05, 3.0, 3.1, 0.2)]
    settings = {"hidden": (200,), "lr": ((0, 0.1), (10, 0.05)), "optimizer": "sgd", "seed": 3}
    for loss in (9.0, 3.1):  # the second replaces the first
        write_model(tmp_path / "17", rows, settings, {"dev loss": loss})
    assert [path.name for path in tmp_path.iterdir()] == ["17"]
    events = EventAccumulator(str(tmp_path / "17"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert sorted(scalars) == ["dev loss", "learning rate", "loss/dev", "loss/train"]
    assert [(e.step, e.value) for e in events.Scalars("dev loss")] == [(20, pytest.approx(3.1))]
    assert [e.step for e in events.Scalars("loss/train")] == [10, 20]
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    table = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert table["hidden"].number_value == 200
    assert table["lr"].string_value == "0.1,0.05@10"
    assert table["optimizer"].string_value == "sgd"
