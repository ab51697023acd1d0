"""Stock training of several models at once, in processes of their own with one thread each.

That is what one does with stock torch and several cores: starts the program several times. The
processes here hold a share of the models each, one after the other; a call lets all models take the
same number of steps and waits for the last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from bench.process import Message, Process, serve
from bench.training_case import TrainingCase, every_model

LOOPS = ("lecture loop", "compile, whole step")


class SideBySide:
    """The processes of one case and one of `LOOPS`, compiled and warm."""

    def __init__(self, case: TrainingCase, loop: str, count: int):
        self._processes: list[Process] = []
        try:
            for i in range(count):
                share = ",".join(map(str, every_model(case)[i::count]))
                command = ["bench.two_processes", case.name, share, loop]
                self._processes.append(Process(command, greet=False))
            for process in self._processes:
                process.receive()
        except BaseException:
            self.close()
            raise

    def take(self, steps: int) -> None:
        """Every model takes `steps` steps."""
        for process in self._processes:
            process.send({"steps": steps})
        for process in self._processes:
            process.receive()

    def close(self) -> None:
        for process in self._processes:
            process.close()


def prepare(name: str, models: list[int], loop_name: str) -> Callable[[Message], Message]:
    """Builds some models of the case in their process."""
    import torch

    from bench.providers import compiled
    from bench.stock_training import StockRun, lecture_loop, step_loop, whole_step
    from bench.tables import TRAINING_CASES

    torch.set_num_threads(1)
    case = next(case for case in TRAINING_CASES if case.name == name)
    loop = lecture_loop if loop_name == "lecture loop" else step_loop(compiled(whole_step(case)))
    loop([StockRun(case, m=models[0])], case.checked_steps)
    runs = [StockRun(case, m=m) for m in models]

    def answer(asked: Message) -> Message:
        loop(runs, asked["steps"])
        return {}

    return answer


if __name__ == "__main__":
    serve(partial(prepare, sys.argv[1], [int(m) for m in sys.argv[2].split(",")], sys.argv[3]))
