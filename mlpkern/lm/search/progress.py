"""The display of a running sweep: a bar with the time left on a terminal, else only lines."""

from __future__ import annotations

from typing import Any, Protocol

from mlpkern.lm.training.progress import NoProgress, display_failed, on_a_terminal, terminal_bar


class SweepProgress(Protocol):
    """What a sweep calls. After the first exception of a method it warns (`display_failed`) and
    goes on without calls."""

    def batch(self, name: str, steps: int) -> None:
        """The batch ``name`` begins; the sweep has ``steps`` steps left, those of all models."""

    def advance(self, steps: int) -> None:
        """``steps`` more steps are done, of all models together."""


class Lines(NoProgress):
    """The lines alone, on standard output."""

    def batch(self, name: str, steps: int) -> None: ...

    def line(self, text: str) -> None:
        """Prints ``text``, above the bar if there is one."""
        print(text, flush=True)


class Bar(Lines):
    """A tqdm bar on standard error below the lines, from the first batch on; its time left is from
    the speed so far."""

    def __init__(self) -> None:
        self._bar: Any = None

    def batch(self, name: str, steps: int) -> None:
        if self._bar is None:
            form = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps"
            self._bar = terminal_bar(
                steps, desc=name, unit_scale=True, bar_format=form + " [{elapsed}<{remaining}]",
                smoothing=0,
            )  # fmt: skip
        self._bar.set_description_str(name, refresh=False)
        self._bar.total = self._bar.n + steps
        self._bar.refresh()

    def advance(self, steps: int) -> None:
        self._bar.update(steps)

    def line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        super().line(text)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Unfailing(NoProgress):
    """Passes calls on to ``progress`` until one raises."""

    def __init__(self, progress: SweepProgress | None) -> None:
        self._progress = progress

    def batch(self, name: str, steps: int) -> None:
        self._pass_on("batch", name, steps)

    def advance(self, steps: int) -> None:
        self._pass_on("advance", steps)

    def _pass_on(self, call: str, *values: Any) -> None:
        try:
            if self._progress is not None:
                getattr(self._progress, call)(*values)
        except Exception as error:
            self._progress = None
            display_failed(error)


def sweep_display() -> Lines:
    """A bar when standard error is a terminal, else lines."""
    return Bar() if on_a_terminal() else Lines()
