"""The lock of a run folder: who is refused, who is dead, and who takes over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from mlpkern.lm.errors import WriteError
from mlpkern.lm.saved import folder_lock
from mlpkern.lm.saved.folder_lock import FolderInUseError, FolderLock
from mlpkern.lm.saved.process import host_name, is_running, machine, start_of

OTHER_BOOT = "another boot of another machine"


def written(folder, age=0.0, **changed):
    """A lock file in ``folder`` as this process would write it, but for what is ``changed``."""
    folder.mkdir(exist_ok=True)
    file = folder / ".lock"
    with FolderLock(folder):
        holder = json.loads(file.read_text())
    file.write_text(json.dumps({**holder, **changed}))
    at = file.stat().st_mtime - age
    os.utime(file, (at, at))
    return file


@pytest.fixture
def dead():
    """The number and the start of a process that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        start = start_of(process.pid)
        process.kill()
    return {"pid": process.pid, "process_start": start}


# who is refused


def test_the_second_is_refused_with_process_and_host_of_the_first(tmp_path):
    with FolderLock(tmp_path / "run") as lock:
        lock.check()
        with pytest.raises(FolderInUseError) as refused, FolderLock(tmp_path / "run"):
            pass
        message = str(refused.value)
        assert f"process {os.getpid()} (this one) on {host_name()} has been writing" in message
        assert message.startswith(f"{tmp_path / 'run'}: ")
        assert "\n" not in message
        lock.check()
    assert os.listdir(tmp_path / "run") == []
    with FolderLock(tmp_path / "run"):
        pass


def test_another_thread_is_refused_and_an_error_releases(tmp_path):
    refused = []

    def second():
        try:
            FolderLock(tmp_path).__enter__()
        except FolderInUseError as error:
            refused.append(error)

    with pytest.raises(KeyboardInterrupt), FolderLock(tmp_path):  # noqa: PT012
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        raise KeyboardInterrupt
    assert len(refused) == 1
    assert os.listdir(tmp_path) == []


def test_a_living_process_of_this_machine_is_never_taken_over(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as other:
        file = written(tmp_path, age=3600, pid=other.pid, process_start=start_of(other.pid))
        with pytest.raises(FolderInUseError, match=f"process {other.pid} on "):
            FolderLock(tmp_path).__enter__()
        other.kill()
        other.wait()
        with FolderLock(tmp_path) as lock:
            assert json.loads(file.read_text())["pid"] == os.getpid()
            lock.check()
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the heartbeat is a thread
def test_a_forked_child_neither_holds_nor_releases_the_lock_of_its_parent(tmp_path):
    with FolderLock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            try:
                lock.__exit__()
                FolderLock(tmp_path).__enter__()
            except FolderInUseError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        lock.check()


# who is dead


def test_a_dead_process_does_not_block(tmp_path, dead):
    written(tmp_path, **dead)
    with FolderLock(tmp_path) as lock:
        lock.check()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not machine(), reason="the system does not say which boot this is")
def test_a_later_process_with_the_number_of_the_dead_one_does_not_count(tmp_path):
    start = start_of(os.getppid())
    assert start
    assert is_running(os.getppid(), start)
    written(tmp_path, pid=os.getppid(), process_start=start + "1")
    with FolderLock(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="the system has no waitid")
def test_a_zombie_counts_as_dead():
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet collected
        assert not is_running(process.pid, "")


@pytest.mark.parametrize(("age", "free"), [(0, False), (50, False), (61, True), (-3600, False)])
def test_a_process_elsewhere_is_judged_by_its_heartbeat(tmp_path, dead, age, free):
    """Also one with the number of a dead process here: it is another machine's."""
    written(tmp_path, age, machine=OTHER_BOOT, host="far", **dead)
    if free:
        with FolderLock(tmp_path):
            pass
        return
    with pytest.raises(FolderInUseError, match=r"process \d+ on far .*last sign of life \d+ s ago"):
        FolderLock(tmp_path).__enter__()


def test_the_age_is_by_the_clock_of_the_file_server(tmp_path, monkeypatch):
    written(tmp_path, machine=OTHER_BOOT)
    monkeypatch.setattr(folder_lock.time, "time", lambda: 4e9)  # this machine's clock is wrong
    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path).__enter__()


def test_the_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT", 0.01)
    with FolderLock(tmp_path):
        os.utime(tmp_path / ".lock", (0, 0))
        for _ in range(1000):
            if (tmp_path / ".lock").stat().st_mtime:
                break
            threading.Event().wait(0.01)
        assert (tmp_path / ".lock").stat().st_mtime


@pytest.mark.parametrize("text", ["", '{"pid": 1', "[]"])
def test_a_torn_lock_is_free_only_after_a_while(tmp_path, text):
    """It is one being written, or what a crash has left of it."""
    file = written(tmp_path)
    file.write_text(text)
    with pytest.raises(FolderInUseError, match="another process is about to write there"):
        FolderLock(tmp_path).__enter__()
    os.utime(file, (1e9, 1e9))
    with FolderLock(tmp_path) as lock:
        lock.check()


# who takes over


def rivals(folder, count):
    """How many of ``count`` that enter at the same moment hold the lock, each for a while."""
    start, inside, most = threading.Barrier(count), [], []
    leave = threading.Event()

    def enter():
        start.wait()
        try:
            with FolderLock(folder):
                inside.append(1)
                leave.wait(10)
        except FolderInUseError:
            pass
        most.append(1)
        if len(most) == count - 1:  # all others were refused
            leave.set()

    threads = [threading.Thread(target=enter) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(inside)


def test_of_rivals_that_take_over_at_once_one_wins(tmp_path, dead):
    for k in range(20):
        folder = tmp_path / str(k)
        written(folder, **dead)
        assert rivals(folder, 6) == 1
        assert os.listdir(folder) == []


def test_who_dies_while_taking_over_is_taken_over_as_well(tmp_path, dead):
    first = written(tmp_path, **dead)
    token = json.loads(first.read_text())["token"]
    claim = written(tmp_path / "elsewhere", **dead)
    claim.rename(tmp_path / f".lock.{token}")
    (tmp_path / "elsewhere").rmdir()
    first.write_text(json.dumps({**json.loads(first.read_text()), "token": token}))
    assert rivals(tmp_path, 4) == 1
    assert os.listdir(tmp_path) == []


def test_a_rival_that_comes_too_late_does_not_get_in(tmp_path, dead, monkeypatch):
    """It has seen the dead lock, and makes its claim when another has taken over and left, and a
    third has come."""
    file = written(tmp_path, **dead)
    make, third = folder_lock._make, FolderLock(tmp_path)

    def slow(path, holder):
        if path != file:
            monkeypatch.undo()
            with FolderLock(tmp_path):
                pass
            third.__enter__()
        return make(path, holder)

    monkeypatch.setattr(folder_lock, "_make", slow)
    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path).__enter__()
    third.check()
    third.__exit__()
    assert os.listdir(tmp_path) == []


def test_a_holder_that_was_taken_over_is_told(tmp_path):
    with FolderLock(tmp_path) as lock:
        held = json.loads((tmp_path / ".lock").read_text())
        (tmp_path / ".lock").write_text(json.dumps({**held, "token": "x", "pid": 1}))
        with pytest.raises(FolderInUseError, match="was taken over: process 1 on "):
            lock.check()
    assert os.listdir(tmp_path) == [".lock"]  # the other's


def test_a_lock_that_somebody_deletes_is_made_again(tmp_path):
    with FolderLock(tmp_path / "run") as lock:
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run").rmdir()
        lock.check()
        with pytest.raises(FolderInUseError):
            FolderLock(tmp_path / "run").__enter__()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/run/.lock: cannot be written: Not a directory"):
        FolderLock(tmp_path / "file" / "run").__enter__()


def test_waiting_ends_when_the_holder_leaves(tmp_path):
    first = FolderLock(tmp_path)
    first.__enter__()
    timer = threading.Timer(0.1, first.__exit__)
    timer.start()
    with FolderLock(tmp_path, wait=30):
        pass
    timer.join()
