"""The lock of a folder: one process at a time writes there, on one machine or on several.

The lock is a small file created with O_EXCL, at which only one process succeeds, on NFS as well.
flock and fcntl are not used: on a shared folder it depends on mount options whether other machines
see them. The file names its holder: the process, the host, and the boot of the machine and start of
the process, by which a later process with the same number differs.

A dead holder has no lock. A process of this machine is looked up. A process elsewhere is known only
by its heartbeat: a thread touches the file every `BEAT` seconds, and a holder counts as dead after
`STALE` seconds without. Both times are those of the file server, so the clocks of the machines need
not agree.

To take over the lock of a dead holder, a process creates the file "<lock>.<the holder's token>"
with O_EXCL, so that one of several rivals wins, and renames it over the lock. If it dies in
between, that file is taken over in the same way.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mlpkern.lm.errors import CheckpointError, WriteError
from mlpkern.lm.saved.process import host_name, is_running, machine, start_of

NAME = ".lock"
BEAT = 10.0  # seconds between heartbeats
STALE = 60.0  # seconds without a heartbeat after which a process elsewhere counts as dead


class FolderInUseError(CheckpointError):
    """Another process, or another part of this one, writes in the folder."""


@dataclass(frozen=True)
class _Holder:
    """The content of a lock file; ``token`` is unique to each time that the lock is taken."""

    pid: int
    host: str
    machine: str
    process_start: str
    since: str
    token: str

    @classmethod
    def here(cls) -> _Holder:
        pid = os.getpid()
        date = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(pid, host_name(), machine(), start_of(pid), date, secrets.token_hex(8))

    @property
    def is_near(self) -> bool:
        """Whether this process can look it up."""
        return self.machine != "" and self.machine == machine()

    def __str__(self) -> str:
        holder = f"process {self.pid}" + (" (this one)" if self.pid == os.getpid() else "")
        return f"{holder} on {self.host} has been writing there since {self.since}"


@dataclass(frozen=True)
class _Found:
    """A lock file as read. ``holder`` is None while the file is being written, or after a crash in
    the middle of that; ``token`` then identifies the file by its time."""

    holder: _Holder | None
    token: str
    changed: float

    def age(self, folder: Path) -> float:
        """Seconds since the last heartbeat."""
        return _now(folder) - self.changed

    def is_alive(self, folder: Path) -> bool:
        if self.holder and self.holder.is_near:
            return is_running(self.holder.pid, self.holder.process_start)
        return self.age(folder) < STALE


class FolderLock:
    """The right to write in ``folder``, which is created if it does not exist.

        with FolderLock(folder):  # FolderInUseError names the process that is there already
            ...

    Args:
        wait: seconds to wait for a holder before the error.

    A second lock in the same process is refused like any other. A forked child does not hold the
    lock of its parent.
    """

    def __init__(self, folder: Path, *, wait: float = 0.0) -> None:
        self.folder = folder
        self._file = folder / NAME
        self._wait = wait
        self._holder: _Holder | None = None
        self._released = threading.Event()

    def __enter__(self) -> FolderLock:
        me, end = _Holder.here(), time.monotonic() + self._wait
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while not self._take(me, patient=time.monotonic() < end):
                time.sleep(0.05)
        except BaseException as error:
            self._remove(me)
            if isinstance(error, OSError):
                raise WriteError.of(self._file, error) from None
            raise
        self._holder = me
        self._released.clear()
        self._sweep()
        threading.Thread(target=self._beat, args=(me,), name="mlpkern lock", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        me, self._holder = self._holder, None
        self._released.set()
        if me is not None and me.pid == os.getpid():
            self._remove(me)

    @property
    def is_held(self) -> bool:
        """Whether the with block is under way."""
        return self._holder is not None

    def check(self) -> None:
        """FolderInUseError if another process has taken over the lock, as while a machine slept.

        A lock file that somebody deleted is created again.
        """
        me = self._holder
        assert me is not None, "check is for use within the with block"
        try:
            found = _read(self._file)
            if found is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                while not self._take(me, patient=False):
                    pass
                return
        except OSError as error:
            raise WriteError.of(self._file, error) from None
        if found.token != me.token:
            raise FolderInUseError(f"{self.folder}: was taken over: {found.holder or 'by another'}")

    def _take(self, me: _Holder, *, patient: bool) -> bool:
        """Whether ``me`` now holds the lock; False: try again.

        FolderInUseError for a living holder, unless ``patient``.
        """
        place, dead = self._file, []
        while not _make(place, me):
            found = _read(place)
            if found is None:  # just released
                return False
            if found.is_alive(self.folder):
                if patient:
                    return False
                raise FolderInUseError(self._refusal(found))
            dead.append(found.token)
            place = self._file.with_name(f"{NAME}.{found.token}")
        if dead:
            # too late if the dead holder that this claim is to succeed has no lock any more
            head = _read(self._file)
            if head is None or head.token != dead[0]:
                place.unlink(missing_ok=True)
                return False
            os.replace(place, self._file)
        return True

    def _refusal(self, found: _Found) -> str:
        holder = str(found.holder or "another process is about to write there")
        if not (found.holder and found.holder.is_near):
            age = max(0, round(found.age(self.folder)))
            holder += f" (last sign of life {age} s ago; it counts as dead after {STALE:.0f})"
        return f"{self.folder}: {holder}; only one process may"

    def _sweep(self) -> None:
        """Removes claims left by rivals that died."""
        for file in self.folder.glob(f"{NAME}.*"):
            with contextlib.suppress(OSError):
                file.unlink()

    def _remove(self, me: _Holder) -> None:
        with contextlib.suppress(OSError):
            found = _read(self._file)
            if found and found.token == me.token:
                self._file.unlink()

    def _beat(self, me: _Holder) -> None:
        while not self._released.wait(BEAT) and self._holder is me:
            with contextlib.suppress(OSError):
                found = _read(self._file)
                if found and found.token == me.token:
                    os.utime(self._file)


def holder_of(folder: Path) -> str | None:
    """Which living process holds the lock of ``folder``, in words; None if none does."""
    found = _read(folder / NAME)
    if found is None or not found.is_alive(folder):
        return None
    return str(found.holder or "another process is about to write there")


def is_of_a_lock(file: str) -> bool:
    """Whether ``file`` is the name of a lock or of a claim to one."""
    return file == NAME or file.startswith(f"{NAME}.")


def _make(path: Path, holder: _Holder) -> bool:
    """Creates a lock file for ``holder``; False if the file exists."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(holder), file)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return True


def _read(path: Path) -> _Found | None:
    """The lock file ``path``, None if there is none; opening it makes NFS ask its server."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text, status = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    try:
        holder = _Holder(**json.loads(text))
    except (ValueError, TypeError):
        return _Found(None, f"torn-{status.st_mtime_ns}", status.st_mtime)
    return _Found(holder, holder.token, status.st_mtime)


def _now(folder: Path) -> float:
    """The time on the clock of the machine that stores ``folder``: that of a new file there."""
    probe = folder / f"{NAME}.{secrets.token_hex(4)}.now"
    try:
        handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            return os.fstat(handle).st_mtime
        finally:
            os.close(handle)
            probe.unlink(missing_ok=True)
    except OSError:
        return time.time()
