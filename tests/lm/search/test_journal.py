"""The journal of a study: torn and damaged lines, a full disk, several writers, Optuna's own."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace

import pytest
from support.lm.sweeps import NO_TEST, PLAN, states

from mlpkern.lm.errors import CheckpointError, WriteError
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.saved.folder_lock import FolderInUseError, FolderLock
from mlpkern.lm.search.folder import SweepFolder
from mlpkern.lm.search.rungs import sweep
from mlpkern.lm.search.study import finished_trials, open_study

optuna = pytest.importorskip("optuna")

from mlpkern.lm.search.journal import Journal  # noqa: E402

SMALL = replace(PLAN, trials=2, batch=2)


def operations(path):
    return list(Journal(path).read_logs(0))


# lines


def test_optuna_reads_our_journal_and_we_read_its(tmp_path):
    from optuna.storages.journal import JournalFileBackend

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    logs = [{"op_code": k, "x": 0.1 * k, "name": "é", "none": None} for k in range(3)]
    Journal(ours).append_logs(logs)
    JournalFileBackend(str(theirs)).append_logs(logs)
    assert operations(ours) == operations(theirs) == logs
    read = list(JournalFileBackend(str(ours)).read_logs(0))
    assert [{**log, "crc32": None} for log in logs] == [{**log, "crc32": None} for log in read]


def test_reading_goes_on_where_it_stopped(tmp_path):
    journal, other = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    for k in range(4):
        other.append_logs([{"k": 2 * k}, {"k": 2 * k + 1}])
        assert [log["k"] for log in journal.read_logs(2 * k)] == [2 * k, 2 * k + 1]
    assert [log["k"] for log in journal.read_logs(5)] == [5, 6, 7]
    assert [log["k"] for log in Journal(tmp_path / "j").read_logs(3)] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("torn", [b"{", b'{"op_code":4,"worker_id', b'{"whole": 1}', b"\xff\xfe"])
def test_a_torn_last_line_is_cut_before_the_next_is_added(tmp_path, torn):
    path = tmp_path / "j"
    Journal(path).append_logs([{"k": 0}])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert operations(path) == [{"k": 0}]
    assert path.read_bytes() == whole
    reader, writer = Journal(path), Journal(path)
    path.write_bytes(whole + torn)  # of another process that was killed just now
    assert list(reader.read_logs(0)) == [{"k": 0}]
    writer.append_logs([{"k": 1}])
    assert list(reader.read_logs(1)) == [{"k": 1}]
    assert operations(path) == [{"k": 0}, {"k": 1}]


def test_every_changed_byte_is_noticed_and_its_line_named(tmp_path):
    """But in the name of the sum itself, where nothing of what the line says is lost."""
    path = tmp_path / "j"
    Journal(path).append_logs([{"op_code": k, "value": 1.25 + k} for k in range(3)])
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    name = whole.index(b"crc32", second)
    for k in {*range(second, whole.index(b"\n", second))} - {*range(name, name + 5)}:
        flipped = bytearray(whole)
        flipped[k] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"j, line 2: damaged; lines 1 to 1 are whole"):
            operations(path)


def test_writers_at_once_lose_and_mix_nothing(tmp_path):
    path = tmp_path / "j"

    def write(name):
        journal = Journal(path)
        for k in range(20):
            journal.append_logs([{"name": name, "k": k}, {"name": name, "k": -k}])

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = operations(path)
    for name in "abc":
        assert [log["k"] for log in found if log["name"] == name] == [
            sign * k for k in range(20) for sign in (1, -1)
        ]


# a full disk


def test_a_full_disk_leaves_a_journal_that_goes_on(disk):
    path = disk.folder / "j"
    journal = Journal(path)
    journal.append_logs([{"k": 0}])
    whole = path.read_bytes()
    disk.fill()
    with pytest.raises(WriteError, match=f"j: cannot be written: {disk.message}") as error:
        journal.append_logs([{"k": 1, "long": "x" * 5000}, {"k": 2}])
    assert "\n" not in str(error.value)
    assert path.read_bytes() == whole
    assert not list(disk.folder.glob("*.lock"))
    disk.free()
    journal.append_logs([{"k": 1}])
    assert operations(path) == [{"k": 0}, {"k": 1}]


@pytest.mark.filterwarnings("ignore:.*what is not saved waits for the next batch")
def test_a_sweep_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(disk):
    folder = SweepFolder(disk.folder / "sweep")
    sweep(SMALL, NO_TEST, folder)
    best = load_checkpoint(folder.best.path)
    disk.fill()
    with pytest.raises(WriteError, match=f"cannot be written: {disk.message}"):  # noqa: PT012
        for trials in range(4, 40, 2):  # the last page of the journal may have room for a few
            sweep(replace(SMALL, trials=trials), NO_TEST, folder)
    assert folder.journal.read_bytes().endswith(b"\n")
    assert load_checkpoint(folder.best.path).config == best.config
    disk.free()
    ended = len(finished_trials(open_study(folder.journal, SMALL, NO_TEST.digest)))
    done = sweep(replace(SMALL, trials=ended + 2), NO_TEST, folder)
    assert len(finished_trials(done.study)) == ended + 2


# the whole study


def test_a_torn_journal_is_that_of_the_trials_before(tmp_path):
    folder = SweepFolder(tmp_path)
    sweep(SMALL, NO_TEST, folder)
    before = folder.journal.read_bytes()
    with folder.journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"')
    done = sweep(replace(SMALL, trials=4), NO_TEST, folder)
    assert folder.journal.read_bytes().startswith(before)
    assert states(done.study).count("COMPLETE") + states(done.study).count("PRUNED") == 4
    sweep(replace(SMALL, trials=4), NO_TEST, folder)


def test_a_damaged_line_in_the_middle_is_one_line_that_names_it(tmp_path):
    folder = SweepFolder(tmp_path)
    sweep(SMALL, NO_TEST, folder)
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    for damaged in (b"{broken\n", b"[]\n", b'{"op_code": 77}\n', lines[4].replace(b"1", b"2")):
        folder.journal.write_bytes(b"".join([*lines[:4], damaged, *lines[5:]]))
        with pytest.raises(CheckpointError, match=r"study.journal, line 5: ") as error:
            open_study(folder.journal, SMALL, NO_TEST.digest)
        assert "\n" not in str(error.value)
    without = [json.loads(line) for line in lines]
    for log in without:
        del log["crc32"]  # as Optuna and earlier versions write it
    folder.journal.write_text("".join(json.dumps(log) + "\n" for log in without))
    assert len(open_study(folder.journal, SMALL, NO_TEST.digest).trials) == 2


# the best run


def test_a_best_run_that_cannot_be_saved_waits_for_the_next_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["mlpkern.lm.search.rungs"], "LOCK_SECONDS", 0.0)
    folder = SweepFolder(tmp_path / "a")
    lock = FolderLock(folder.best.path)  # `mlpkern train --resume SWEEP/best`
    lock.__enter__()

    def release(line):
        if "trials 9-17" in line and "step 40" in line:
            lock.__exit__()

    with pytest.warns(RuntimeWarning, match="best: process .* waits for the next batch") as warned:
        done = sweep(replace(PLAN, trials=18), NO_TEST, folder, report=release)
    assert len(warned) == 1
    assert json.loads(folder.best.config.read_text())["trial"] == done.study.best_trial.number
    assert load_checkpoint(folder.best.path).step == 40


def test_a_best_run_that_is_not_saved_at_the_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["mlpkern.lm.search.rungs"], "LOCK_SECONDS", 0.0)
    folder = SweepFolder(tmp_path)
    with (
        FolderLock(folder.best.path),
        pytest.warns(RuntimeWarning, match="waits for the next batch"),
        pytest.raises(FolderInUseError, match="best: process "),
    ):
        sweep(SMALL, NO_TEST, folder)


def test_of_two_processes_the_better_run_stays(tmp_path, monkeypatch):
    """One finds its best, and before it is saved another has found and saved a better."""
    folder = SweepFolder(tmp_path)
    save, saved = SweepFolder.save_best, []
    monkeypatch.setattr(
        SweepFolder, "save_best", lambda *args: (saved.append(args[2]), save(*args))
    )
    done = sweep(SMALL, NO_TEST, folder)
    better = done.study.ask()
    done.study.tell(better, 0.0)
    done._unsaved = ("never looked at", saved[-1], 0.0)
    done.save_best()
    assert len(saved) == 1
