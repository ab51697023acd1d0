"""The machine code of each kernel: registers, stack, shared memory and instructions, by target.

Reads a library, an object file or a cubin with ``cuobjdump``, which runs ``nvdisasm``: both from
the CUDA toolkit, or from the package ``triton``, which carries them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path

import convergence
from convergence import Instruction


@dataclass
class Code:
    """A kernel compiled for one target."""

    registers: int = 0  # of a thread
    stack: int = 0  # bytes of local memory of a thread, spilled registers included
    shared: int = 0  # static bytes of a block; from sm_90 on 1 KB more for the system
    instructions: Counter[str] = field(default_factory=Counter)  # "LDG.E.128": how often it occurs
    endless: int = 0  # branches to themselves that can be reached
    parted: list[str] = field(default_factory=list)  # what convergence.py finds

    length: int = 0  # instructions of the code, without its padding
    shared_loads: int = 0  # those of them that read shared memory

    def merge(self, other: Code) -> None:
        """Several instances under one name: the worst figures and all instructions."""
        self.registers = max(self.registers, other.registers)
        self.stack = max(self.stack, other.stack)
        self.shared = max(self.shared, other.shared)
        self.instructions += other.instructions
        self.endless += other.endless
        self.parted += other.parted
        self.length = max(self.length, other.length)
        self.shared_loads = max(self.shared_loads, other.shared_loads)


#: {kernel: {target: code}}, for example kernels["scale_kernel<float, 4>"]["sm_90"]
Kernels = dict[str, dict[str, Code]]

FUNCTION = re.compile(r"^\s*Function\s*:?\s*([\w$.]+)\s*:?\s*$", re.M)
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(@\S+ +)?([A-Z][\w.]*)([^;]*);", re.M)


def find_tool(name: str) -> str | None:
    """Path of cuobjdump or nvdisasm, None where neither the toolkit nor triton has it."""
    folders = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    triton = importlib.util.find_spec("triton")
    path = [os.environ.get("PATH", ""), *(f"{folder}/bin" for folder in folders if folder)]
    if triton and triton.origin:
        path.append(str(Path(triton.origin).parent / "backends" / "nvidia" / "bin"))
    return shutil.which(name, path=os.pathsep.join(path))


def read(library: Path) -> Kernels:
    """Every kernel of `library` for every target that it has machine code for."""
    listed = re.findall(r"\.(sm_\w+)\.cubin", _dump(library, "--list-elf"))
    targets = sorted(set(listed), key=lambda target: (len(target), target))
    with ThreadPool(os.cpu_count()) as pool:  # the time goes into the disassembler
        found = pool.map(lambda target: _read_target(library, target), targets)
    names = demangle({name for codes in found for name in codes})
    kernels: Kernels = {}
    for target, codes in zip(targets, found, strict=True):
        for name, code in codes.items():
            kernels.setdefault(names[name], {}).setdefault(target, Code()).merge(code)
    return {name: kernels[name] for name in sorted(kernels)}


def _read_target(library: Path, target: str) -> dict[str, Code]:
    codes = {}
    for name, text in _functions(_dump(library, "--dump-resource-usage", "-arch", target)):
        if figures := RESOURCES.search(text):
            registers, stack, shared, local = map(int, figures.groups())
            codes[name] = Code(registers, max(stack, local), shared)
    for name, text in _functions(_dump(library, "--dump-sass", "-arch", target)):
        before = ""
        listing = []
        for address, predicate, opcode, operands in INSTRUCTION.findall(text):
            guard = predicate.strip().removeprefix("@")
            # nvdisasm 12.8 writes a note of the scheduling behind the operands: "0x10  ?trans5".
            plain = re.sub(r"\s*\?\w+\s*$", "", operands).strip()
            listing.append(Instruction(int(address, 16), guard, opcode, plain))
            codes[name].instructions[opcode] += 1
            # The padding at the end of every kernel is such a branch as well, behind an EXIT.
            itself = opcode.startswith("BRA") and listing[-1].address == listing[-1].target
            codes[name].endless += itself and not before.startswith(("EXIT", "BRA", "RET", "NOP"))
            codes[name].length += opcode != "NOP"
            codes[name].shared_loads += opcode.startswith("LDS")
            before = predicate or opcode
        check = convergence.problems if target == convergence.TARGET else convergence.predicated
        codes[name].parted += check(listing)
    return codes


def demangle(names: Iterable[str]) -> dict[str, str]:
    """The name of each kernel in the tables: with template arguments, without namespaces.

    Kernels of CUB lose their arguments, whose spelling changes with its version.
    """
    ordered = sorted(names)
    done = subprocess.run(
        ["c++filt"], input="\n".join(ordered) + "\n", capture_output=True, text=True, check=True
    )
    texts = done.stdout.removesuffix("\n").split("\n")
    return {name: _short(text) for name, text in zip(ordered, texts, strict=True)}


def _short(text: str) -> str:
    depth, end = 0, len(text)
    for i in range(len(text) - 1, -1, -1):  # the parameters: the last pair of brackets
        depth += (text[i] == ")") - (text[i] == "(")
        if text[i] == "(" and depth == 0:
            end = i
            break
    text = text[:end].removeprefix("void ")
    if re.match(r"(thrust|cub)::", text):
        return "cub::" + text.split("<")[0].split("::")[-1]
    # "(anonymous namespace)::", and the type of an argument as in "(bool)1".
    text = re.sub(r"\((anonymous namespace|[\w: ]+)\)(::)?", "", text)
    text = text.replace("mlpkern::cuda::", "").replace("mlpkern::", "")
    text = text.replace("__nv_bfloat16", "bf16").replace("__half", "f16")
    return text.replace("unsigned char", "u8").replace("short", "i16")


def _functions(text: str) -> Iterator[tuple[str, str]]:
    """(kernel, its part of the output of cuobjdump) for each kernel."""
    parts = FUNCTION.split(text)
    return zip(parts[1::2], parts[2::2], strict=True)


def _dump(library: Path, *what: str) -> str:
    cuobjdump, nvdisasm = find_tool("cuobjdump"), find_tool("nvdisasm")
    if not cuobjdump or not nvdisasm:
        raise FileNotFoundError("cuobjdump and nvdisasm were not found (pip install triton)")
    path = os.pathsep.join([str(Path(nvdisasm).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [cuobjdump, *what, str(library)],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )
    # A cubin alone, not in a library: its format does not concern what is read here.
    said = [line for line in done.stderr.splitlines() if "switching to Old format" not in line]
    if said:
        print("\n".join(said), file=sys.stderr)
    done.check_returncode()
    return done.stdout
