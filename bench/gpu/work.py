"""Runs the programs of a step, each in a process group of its own, until the time is up.

Imports only the standard library: it has to work where everything else is broken.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench import ROOT

GRACE_S = 10  # between SIGTERM, upon which programs write what they have, and SIGKILL


class OutOfTime(Exception):
    """The step has used up its time; its programs are ended."""


def interpreter() -> str:
    """The Python of the programs, by a path that holds in any folder."""
    named = os.environ.get("PYTHON") or sys.executable
    return os.path.abspath(shutil.which(named) or named)


@dataclass
class Work:
    """One step at work. What its programs print goes to `log`."""

    log: Path
    folder: Path  # for the files of the step
    deadline: float  # of time.monotonic()
    rehearsing: bool = False
    python: str = field(default_factory=interpreter)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def say(self, text: str) -> None:
        with self.log.open("a") as log:
            print(text.rstrip(), file=log)

    def call(self, *command: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> int:
        """The exit status of a program."""
        with self.log.open("ab") as log:
            started = self.start(command, log, cwd, env)
            self.wait([started])
        return started.returncode

    def together(
        self, commands: Mapping[str, Sequence[str]], env: Mapping[str, str]
    ) -> dict[str, tuple[int, str]]:
        """Exit status and output of programs that run side by side."""
        paths = {name: self.log.with_name(f"{self.log.name}.{name}") for name in commands}
        with contextlib.ExitStack() as stack:
            started = {
                name: self.start(command, stack.enter_context(paths[name].open("wb")), ROOT, env)
                for name, command in commands.items()
            }
            try:
                self.wait(list(started.values()))
            finally:
                texts = {name: path.read_text(errors="replace") for name, path in paths.items()}
                for name, path in paths.items():
                    self.say(f"--- {name}: exit status {started[name].poll()}\n{texts[name]}")
                    path.unlink()
        return {name: (started[name].returncode, texts[name]) for name in commands}

    def start(
        self, command: Sequence[str], log: IO[bytes], cwd: Path, env: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        if self.left() < 1:
            raise OutOfTime
        try:
            started = subprocess.Popen(
                list(command),
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            log.write(f"{command[0]}: {error}\n".encode())
            return subprocess.Popen(["false"])
        self.running.append(started)
        return started

    def wait(self, started: Sequence[subprocess.Popen[bytes]]) -> None:
        """Waits until all have ended; when the time is up, ends them and raises `OutOfTime`."""
        try:
            for one in started:
                one.wait(self.left())
        except subprocess.TimeoutExpired:
            self.end()
            raise OutOfTime from None
        self.running = [one for one in self.running if one not in started]

    def end(self) -> None:
        """Ends what still runs, whole process groups: by SIGTERM, then by SIGKILL."""
        for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
            for one in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, number)
            until = time.monotonic() + patience
            for one in self.running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.wait(max(0.0, until - time.monotonic()))
        self.running.clear()

    # The project's own programs

    def program(self, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> int:
        return self.call(*self.command(module, *arguments), env=env)

    def command(self, module: str, *arguments: str) -> list[str]:
        """The command of a program of the benchmark, in a rehearsal with a stand-in for the GPU."""
        rehearsed = ["bench.gpu.rehearsal.program"] if self.rehearsing else []
        return [self.python, "-m", *rehearsed, module, *arguments]

    def has(self, module: str) -> bool:
        return self.call(self.python, "-c", f"import {module}") == 0

    def pytest(
        self, *arguments: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> int:
        """Runs pytest without the plugins of other projects, whose warnings would be errors."""
        collect = ["--collect-only", "-q"] if self.rehearsing else ["-v"]
        command = [self.python, "-m", "pytest", "-p", "no:cacheprovider", "-rfE", "--tb=short"]
        plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **(env or {})}
        return self.call(*command, *collect, *arguments, cwd=cwd, env=plain)

    def backend(self, name: str) -> bool:
        """Whether a backend is available; without it its tests would be skipped."""
        return self.program("bench.gpu.has_backend", name) == 0
