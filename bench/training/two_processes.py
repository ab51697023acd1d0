"""Stock training of several models at once, in processes of their own with one thread each.

That is how one uses several cores with stock torch: by starting the program several times. Each
process holds a share of the models and trains them one after the other; a call lets all models take
the same number of steps and waits for the last process.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.core.process import Process
from bench.core.providers import compiled
from bench.training.case import TrainingCase, every_model
from bench.training.stock_loops import StockRun, lecture_loop, step_loop, whole_step

LOOPS = ("lecture loop", "compile, whole step")


class SideBySide:
    """The processes of one case and one of `LOOPS`, compiled and warm."""

    def __init__(self, case: TrainingCase, loop: str, count: int):
        self.shares = [list(every_model(case)[i::count]) for i in range(count)]
        self._processes: list[Process] = []
        try:
            for share in self.shares:
                self._processes.append(Process(prepare, case, share, loop))
            for process in self._processes:
                process.receive()
        except BaseException:
            self.close()
            raise

    def take(self, steps: int) -> None:
        """Every model takes `steps` steps."""
        for process in self._processes:
            process.send(steps)
        for process in self._processes:
            process.receive()

    def close(self) -> None:
        for process in self._processes:
            process.close()


def prepare(case: TrainingCase, models: list[int], loop_name: str) -> Callable[[int], None]:
    """In a process: builds these models of the case; what it returns lets them take steps."""
    torch.set_num_threads(1)
    loop = lecture_loop if loop_name == "lecture loop" else step_loop(compiled(whole_step(case)))
    loop([StockRun(case, m=models[0])], case.checked_steps)
    runs = [StockRun(case, m=m) for m in models]

    def answer(steps: int) -> None:
        loop(runs, steps)

    return answer
