"""Stock training of several models at once, each in a process of its own with one thread.

That is what one does with stock torch and as many cores as models: starts the program several
times. The processes here hold one model each; a call lets all of them take the same number of steps
and waits for the last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from bench.process import Message, Process, serve
from bench.training_case import CASES, TrainingCase, every_model

LOOPS = ("lecture loop", "compile, whole step")


class SideBySide:
    """The processes of one case and one of `LOOPS`, compiled and warm."""

    def __init__(self, case: TrainingCase, loop: str):
        self._processes: list[Process] = []
        try:
            for m in every_model(case):
                command = ["bench.two_processes", case.name, str(m), loop]
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


def prepare(name: str, m: int, loop_name: str) -> Callable[[Message], Message]:
    """Builds model `m` of the case in its process."""
    import torch

    from bench.providers import compiled
    from bench.stock_training import StockRun, lecture_loop, sgd_step, step_loop

    torch.set_num_threads(1)
    case = next(case for case in CASES if case.name == name)
    loop = lecture_loop if loop_name == "lecture loop" else step_loop(compiled(sgd_step))
    run = StockRun(case, m=m)
    loop([run], case.checked_steps)

    def answer(asked: Message) -> Message:
        loop([run], asked["steps"])
        return {}

    return answer


if __name__ == "__main__":
    serve(partial(prepare, sys.argv[1], int(sys.argv[2]), sys.argv[3]))
