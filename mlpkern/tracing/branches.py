"""Which branches the code of a forward took while it was traced.

A trace follows one path. A branch on anything but the values of the inputs (a flag, the kind of an
argument, the state of torch) does not make it fail, but the other path stays unknown.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable
from itertools import pairwise
from types import CodeType, FrameType, TracebackType
from typing import Any


class Branches:
    """While active, records which instructions run, except in torch and the standard library.

    The garbage collector is off meanwhile, since a finalizer that it runs is not code of the
    forward.
    """

    def __init__(self) -> None:
        self._collecting = False
        self._steps: dict[CodeType, set[tuple[int, int]]] = {}
        self._outer: Any = None

    def __enter__(self) -> Branches:
        self._collecting = gc.isenabled()
        gc.disable()
        self._outer = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one such frame in settrace
        sys.settrace(self._called)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._outer)
        if self._collecting:
            gc.enable()

    def _called(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in ("torch", "mlpkern") or package in sys.stdlib_module_names:
            return None
        steps = self._steps.setdefault(frame.f_code, set())
        last = -1

        def step(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal last
            if event == "opcode":
                steps.add((last, frame.f_lasti))
                last = frame.f_lasti
            return step

        frame.f_trace = step  # before f_trace_opcodes: Python 3.13 looks for it there
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    def open(self) -> str:
        """A branch of which only one way was taken, or an ``except``, in words; or ""."""
        for code, steps in self._steps.items():
            # without steps another tracer, such as a debugger, has this code
            line = _open_line(code, steps) if steps else code.co_firstlineno
            if line:
                return f"line {line} of {code.co_name} has a branch that the trace cannot decide"
        return ""


def _open_line(code: CodeType, steps: set[tuple[int, int]]) -> int:
    everything = list(dis.get_instructions(code))
    real: dict[int, int] = {}  # an EXTENDED_ARG belongs to what follows it
    for step in reversed(everything):
        extended = step.opname == "EXTENDED_ARG"
        real[step.offset] = real[step.offset + 2] if extended else step.offset
    instructions = [step for step in everything if step.opname != "EXTENDED_ARG"]
    index = {step.offset: i for i, step in enumerate(instructions)}
    edges = {(real.get(a, a), real.get(b, b)) for a, b in steps}
    line = code.co_firstlineno
    for step, after in pairwise(instructions):
        line = _line(step) or line
        if _handles(step, after):
            return line
        if "JUMP" not in step.opname or "IF" not in step.opname:
            continue
        ways = {real[int(step.argval)], after.offset}
        seen = {way for way in ways if (step.offset, way) in edges}
        if seen and any(not _raises(instructions[index[way] :]) for way in ways - seen):
            return line
    return 0


def _line(step: dis.Instruction) -> int | None:
    if sys.version_info >= (3, 13):
        return step.line_number
    return step.starts_line


def _handles(step: dis.Instruction, after: dis.Instruction) -> bool:
    """Whether an ``except`` or ``finally`` begins here (a ``with`` has a handler of its own)."""
    if step.opname == "PUSH_EXC_INFO":
        return after.opname != "WITH_EXCEPT_START"
    return step.opname == "SETUP_FINALLY"


def _raises(instructions: list[dis.Instruction]) -> bool:
    """Whether this way leads to a ``raise`` and nowhere else."""
    for step in instructions:
        if step.opname == "RAISE_VARARGS":
            return True
        if "JUMP" in step.opname or step.opname.startswith(("RETURN", "FOR_ITER", "YIELD")):
            return False
    return False
