"""A training goes on when its progress display fails, and is saved when its terminal closes."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from dataclasses import replace

import pytest
from support.lm.training import same_bits, trainer

from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.saved.log import LogRow
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.progress import BarProgress, LineProgress, make_progress
from mlpkern.lm.training.stop_signal import Interrupted
from mlpkern.lm.training.tensorboard import TensorBoardProgress

ROW = LogRow(10, 0.1, 2.5, None, 0.1)


# progress


class Raising:
    """A progress with a fault of its own."""

    def __init__(self, method):
        self.method, self.calls = method, 0

    def _called(self, name):
        if name == self.method:
            self.calls += 1
            raise KeyError("a fault")

    def advance(self, steps):
        self._called("advance")

    def row(self, row):
        self._called("row")

    def close(self):
        self._called("close")


@pytest.mark.parametrize("method", ["advance", "row", "close"])
def test_a_progress_that_raises_is_a_warning_and_changes_nothing(tmp_path, method):
    run = trainer(run=RunFolder(tmp_path), progress=(faulty := Raising(method)))
    with pytest.warns(RuntimeWarning, match=r"the training goes on without it \(KeyError: 'a f"):
        run.train()
    assert faulty.calls == 1
    whole = trainer()
    whole.train()
    assert same_bits(load_checkpoint(tmp_path).parameters, whole.state.model.state_dict())
    quiet = trainer(progress=Raising(method))
    quiet.train()  # warnings are errors here, and not even those end a training
    assert quiet.state.step == 600


def test_event_files_that_cannot_be_written_leave_the_lines(tmp_path, capsys):
    class Writer:
        def add_scalar(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

        close = add_scalar

    progress = TensorBoardProgress.__new__(TensorBoardProgress)
    progress._shown, progress._writer = LineProgress(10), Writer()
    with pytest.warns(RuntimeWarning, match="No space left on device") as warned:  # noqa: PT031
        progress.row(replace(ROW, dev_loss=2.5))
        progress.row(replace(ROW, dev_loss=2.5))
        progress.close()
    assert len(warned) == 1
    assert capsys.readouterr().out.count("step 10/10") == 2


def test_lines_are_those_of_dev_losses_and_a_sign_of_life(monkeypatch, capsys):
    lines, now = LineProgress(10), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines._printed = 0.0
    for step, dev, seconds in ((1, None, 1), (2, 2.5, 2), (3, None, 3), (4, None, 8), (5, None, 9)):
        now[0] = seconds
        lines.row(replace(ROW, step=step, dev_loss=dev))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed] == ["2/10", "4/10"]


def test_terminals_without_a_size_or_closed(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return super().isatty() or True  # ValueError once it is closed

    monkeypatch.setenv("COLUMNS", "wide")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    bar = make_progress(40, 0)
    assert isinstance(bar, BarProgress)
    bar.advance(40)
    bar.row(ROW)
    bar.close()
    assert "40/40" in terminal.getvalue()
    closed = Terminal()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        assert isinstance(make_progress(40, 0), LineProgress)


# a terminal that is closed


@pytest.mark.usefixtures("in_a_terminal")
def test_a_closed_terminal_saves_also_when_told_twice(tmp_path):
    run = trainer(run=RunFolder(tmp_path))
    advance, before = run._advance, signal.getsignal(signal.SIGHUP)

    def advance_and_hang_up(steps):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)  # the terminal and the shell
        return advance(steps)

    run._advance = advance_and_hang_up
    with pytest.raises(Interrupted, match="SIGHUP at step"):
        run.train()
    assert load_checkpoint(tmp_path).step == run.state.step > 0
    assert signal.getsignal(signal.SIGHUP) == before


def test_nohup_stays_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = trainer()
        advance = run._advance
        run._advance = lambda steps: (os.kill(os.getpid(), signal.SIGHUP), advance(steps))[1]
        run.train()
        assert run.state.step == 600
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
