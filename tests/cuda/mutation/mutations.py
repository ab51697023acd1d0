"""The places where CUDA C++ can be broken in a way that a test should notice, found in the source.

Two kinds of places, only in the bodies of functions marked `__global__` or `__device__`:

barrier, wait   every `__syncthreads();`, `__syncwarp(...);` and `cp_async_wait<...>();`
check           every comparison `<`, `<=`, `>`, `>=` that decides, by itself or as one part of
                `a && b` or `a || b`, an `if`, a `?:`, a `bool` variable or a returned truth

Leaving out a check means:

if (c) return; (or continue, break)    never leave
if (c) ...;                            always do it
c ? a : b, bool x = c, return c,       what is within bounds: true for `i < n`, `i >= 0` and
if (c) return x;                       `i > 0`, false for `i >= n`, `i > n` and `i < 0`

Not changed: the conditions of loops (without them a kernel never ends), constants, and expressions
without a comparison (`min`, `max`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

COMPARISON = re.compile(r" (<|<=|>|>=) ")
ASSIGNS = re.compile(r"(?<![=<>!])(?:=|\?|:|\breturn)\s+")
AGAINST_ZERO = re.compile(r" (<|<=|>|>=) 0$")


@dataclass(frozen=True)
class Place:
    file: str  # relative to the folder of sources, "cuda/device/reduce.cuh"
    line: int
    kind: str
    function: str
    text: str
    nth: int  # of the same text in the same function, from 1
    number: int = -1  # of a check, in MLPKERN_LEAVE_OUT
    start: int = 0  # a check: what of the file it is
    end: int = 0
    becomes: bool = True

    def __str__(self) -> str:
        again = f" ({self.nth})" if self.nth > 1 else ""
        return f"{self.file}: {self.function}: {self.kind}: {self.text}{again}"

    @property
    def environment(self) -> str:
        return str(self.number) if self.kind == "check" else f"{self.file}:{self.line}"


def find(file: str, source: str, numbered_from: int = 0) -> list[Place]:
    """The places of one file, in order; its checks are numbered from `numbered_from`."""
    code = blank(source)
    found: list[tuple[int, int, str, str, bool]] = []
    for function, start, end in device_functions(code):
        body = code[start:end]
        for match in re.finditer(r"\b(__syncthreads|__syncwarp|cp_async_wait)\b[^;]*;", body):
            kind = "wait" if match[1] == "cp_async_wait" else "barrier"
            found.append((start + match.start(), start + match.end(), kind, function, True))
        for first, last, becomes in checks(code, start, end):
            found.append((first, last, "check", function, becomes))
    places: list[Place] = []
    seen: dict[tuple[str, str], int] = {}
    number = numbered_from
    for start, end, kind, function, becomes in sorted(set(found)):
        text = " ".join(source[start:end].split())
        nth = seen[function, text] = seen.get((function, text), 0) + 1
        line = source.count("\n", 0, start) + 1
        places.append(
            Place(
                file,
                line,
                kind,
                function,
                text,
                nth,
                number if kind == "check" else -1,
                start,
                end,
                becomes,
            )
        )
        number += kind == "check"
    return places


def with_switches(source: str, places: list[Place]) -> str:
    """`source` with every check made one that MLPKERN_LEAVE_OUT can leave out. Lines stay."""
    inserted: list[tuple[int, int, int, str]] = []  # position, closers first, nesting, text
    for place in places:
        if place.kind != "check":
            continue
        size = place.end - place.start
        call = f"::mlpkern::fiber::leaves_out({place.number})"
        before = f"({call} || (" if place.becomes else f"(!{call} && ("
        inserted.append((place.start, 1, -size, before))
        inserted.append((place.end, 0, size, "))"))
    parts, at = [], 0
    for position, _, _, text in sorted(inserted):
        parts += [source[at:position], text]
        at = position
    return "".join([*parts, source[at:]])


def includes(file: str, folder: Path) -> set[str]:
    """`file` and every file of `folder` that it includes, directly or not."""
    found: set[str] = set()
    open_files = [file]
    while open_files:
        name = open_files.pop()
        if name in found or not (folder / name).is_file():
            continue
        found.add(name)
        open_files += re.findall(r'#include "([^"]+)"', (folder / name).read_text("utf-8"))
    return found


# --- Reading C++, formatted by clang-format -------------------------------------------------------


def blank(source: str) -> str:
    """`source` with comments, literals and preprocessor lines as spaces, at the same positions."""

    def spaces(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    pattern = (
        r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^[ \t]*#(?:\\\n|[^\n])*'
    )
    return re.sub(pattern, spaces, source, flags=re.DOTALL | re.MULTILINE)


def closing(code: str, at: int) -> int:
    """The position of the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i
    raise ValueError(f"bracket at {at} is never closed")


def device_functions(code: str) -> list[tuple[str, int, int]]:
    """Name, start and end of the body of each function of device code."""
    functions = []
    end = 0
    for match in re.finditer(r"__(?:global|device)__", code):
        if match.start() < end:
            continue
        brace = re.compile(r"[{;]").search(code, match.end())
        if not brace or brace[0] == ";":
            continue  # a declaration or a variable
        header = re.sub(
            r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", code[match.end() : brace.start()]
        )
        name = re.search(r"(operator\s*\(\)|\w+)\s*\(", header)
        end = closing(code, brace.start()) + 1
        while after := re.compile(r"\s*,\s*\w+\{|\s*\{").match(
            code, end
        ):  # initializers of a constructor
            end = closing(code, after.end() - 1) + 1
        if name and "constexpr" not in header:
            functions.append((name[1], brace.start(), end))
    return functions


def checks(code: str, start: int, end: int) -> list[tuple[int, int, bool]]:
    """Start, end and replacement of each check between two positions."""
    found = []
    for match in re.compile(r"\bif (\()").finditer(code, start, end):
        last = closing(code, match.start(1))
        leaves = re.compile(r"\s*\{?\s*(return|continue|break)\b").match(code, last + 1)
        if leaves and leaves[1] == "return" and code[leaves.end()] != ";":
            found += within_bounds(code, match.end(1), last)
            continue
        for part in parts(code, match.end(1), last, "||" if leaves else "&&"):
            found.append((*part, not leaves))
    for match in re.compile(r" \? ").finditer(code, start, end):
        found += within_bounds(code, expression_start(code, match.start()), match.start())
    for match in re.compile(r"\b(?:bool \w+ =|return) ").finditer(code, start, end):
        last = expression_end(code, match.end())
        if " ? " not in code[match.end() : last]:
            found += within_bounds(code, match.end(), last)
    return [check for check in found if not is_constant(code, check[0])]


def is_constant(code: str, at: int) -> bool:
    """Whether the statement around `at` must be known to the compiler."""
    begin = max(code.rfind(sign, 0, at) for sign in ";{}")
    return re.search(r"\b(constexpr|static_assert)\b", code[begin:at]) is not None


def within_bounds(code: str, start: int, end: int) -> list[tuple[int, int, bool]]:
    found = []
    for operator in ("&&", "||"):
        for first, last in parts(code, start, end, operator):
            text = code[first:last]
            if re.search(r"&&|\|\|", at_depth_0(text)):
                continue  # its operands come with the other operator
            less = COMPARISON.search(text)[1].startswith("<")  # type: ignore[index]
            inside = not less if AGAINST_ZERO.search(text) else less
            if ("&&" if inside else "||") == operator:
                found.append((first, last, inside))
    return found


def parts(code: str, start: int, end: int, operator: str) -> list[tuple[int, int]]:
    """The operands of `operator` between two positions that have a comparison of their own."""
    cuts, depth = [start], 0
    for i in range(start, end):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0 and code.startswith(operator, i):
            cuts += [i, i + 2]
    cuts.append(end)
    found = []
    for first, last in zip(cuts[::2], cuts[1::2], strict=True):
        text = code[first:last]
        if COMPARISON.search(at_depth_0(text)):
            first += len(text) - len(text.lstrip())
            found.append((first, first + len(text.strip())))
    return found


def at_depth_0(text: str) -> str:
    depth, kept = 0, ""
    for letter in text:
        depth -= letter in ")]}"
        kept += letter if depth == 0 else "_"
        depth += letter in "([{"
    return kept


def expression_start(code: str, at: int) -> int:
    """Where the condition that ends at `at` begins."""
    depth = 0
    while True:
        at -= 1
        depth += (code[at] in ")]}") - (code[at] in "([{")
        if depth < 0 or (depth == 0 and code[at] in ",;"):
            return at + 1
        if depth == 0 and (match := ASSIGNS.match(code, at)):
            return match.end()


def expression_end(code: str, at: int) -> int:
    depth = 0
    while depth > 0 or code[at] not in ",;)]}":
        depth += (code[at] in "([{") - (code[at] in ")]}")
        at += 1
    return at
