"""Which registers and predicates of a kernel may differ between the lanes of a warp, by data flow.

For each register: the bits in which lanes may differ. There are none in threadIdx.x >> 5, the
number of the warp in a one-dimensional block. A load from one address gives one value, and so does
a vote. Every other value may differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

ALL = 0xFFFFFFFF
#: Registers ("R4") and predicates ("P0") that may differ, and in which bits.
State = dict[str, int]

_NO_RESULT = re.compile(
    r"(ST|STG|STS|STL|RED|REDG|BRA|BRX|JMP|BSSY|BSYNC|EXIT|NOP|BAR|LDGSTS|LDGDEPBAR|DEPBAR|MEMBAR|"
    r"ERRBAR|WARPSYNC|YIELD|RET|CCTL|BPT|KILL|BREAK|ENDCOLLECTIVE|FENCE|NANOSLEEP|ARRIVES|U\w+|"
    r"R2UR|S2UR|VOTEU|CALL)\b"
)
_ONE_VALUE = re.compile(r"(VOTE|B2R|CS2R)\b")
_DIFFERS = re.compile(r"(SHFL|MATCH|ATOM\w*|LDL|LDSM|[A-Z]?MMA|[HIDBQO]MMA|BMOV|MOVM|REDUX)\b")
_TWO_RESULTS = re.compile(r"([IFDHP]SETP2?|PLOP3|SHFL|VOTE|ATOM\w*|B2R)\b")
_REGISTER = re.compile(r"\bR(\d+)\b")
_PREDICATE = re.compile(r"\bP([0-6])\b")


@dataclass
class Effect:
    """What an instruction writes, and the bits that may differ in it."""

    results: list[str]
    sources: list[str]
    bits: Callable[[State], int]
    guard: str
    changed: int = ALL  # bits that it can change; the others are those that were there


def effect(opcode: str, operands: str, guard: str) -> Effect:
    base = opcode.split(".")[0]
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", operands)] if operands else []
    if _NO_RESULT.match(opcode):
        return Effect([], [], lambda _: 0, guard)
    count = _results(base, parts)
    results: list[str] = []
    for part in parts[:count]:
        results += _names(part, _width(opcode))
    if base in ("R2P", "P2R"):  # bit i of a register, or of one of its bytes, and predicate i
        packed = [f"P{i}" for i in range(7) if (_number(parts[-1]) or 0) >> i & 1]
    sources: list[str] = []
    for part in parts[count:]:
        sources += _names(part, 2 if ".64" in part else 1)
    if base == "R2P":
        results = packed
    elif base == "P2R":
        sources += packed
    return Effect(
        results, sources, _bits(opcode, base, parts[count:], sources), guard, _changed(base, parts)
    )


def whole(results: list[str], sources: list[str]) -> Effect:
    """Of many instructions together: all results may differ if a source does."""
    return Effect(results, sources, lambda state: ALL * any(s in state for s in sources), "")


def run(effects: list[Effect], state: State, parted: bool) -> None:
    """Carries `state` over the instructions of a block; `parted`: only some lanes may be here."""
    # The values of registers written under a guard, for instructions under the same guard.
    under: dict[str, tuple[str, int]] = {}
    for e in effects:
        if not e.results:
            continue
        guard = e.guard.lstrip("!")
        apart = parted or guard in state
        bits = e.changed if apart else _under_guard(e, state, under)
        for name in e.results:
            if name.startswith("P"):
                under = {k: v for k, v in under.items() if v[0].lstrip("!") != name}
            value = bits
            if guard.startswith("P"):
                value |= state.get(name, 0)
                under[name] = (e.guard, bits)
            else:
                under.pop(name, None)
            if apart and e.changed != ALL:
                value |= state.get(name, 0)
            if value:
                state[name] = value
            else:
                state.pop(name, None)


def _under_guard(e: Effect, state: State, under: dict[str, tuple[str, int]]) -> int:
    if not e.guard:
        return e.bits(state)
    known = {name: under[name][1] for name in e.sources if under.get(name, ("",))[0] == e.guard}
    seen = {name: known.get(name, state.get(name, 0)) for name in e.sources}
    return e.bits({name: bits for name, bits in seen.items() if bits})


def _results(base: str, parts: list[str]) -> int:
    """How many operands, the first ones, are results."""
    if base == "LOP3" and parts[0].startswith("P"):
        return 2
    if _TWO_RESULTS.match(base):
        return 1 if base == "VOTE" and not parts[0].startswith("R") else 2
    count = 1
    while count < len(parts) and re.fullmatch(r"P[0-6T]", parts[count]):
        count += 1
    return count if base not in ("SEL", "FSEL", "P2R", "R2P") else 1


def _width(opcode: str) -> int:
    """Registers of a result."""
    if ".128" in opcode or re.match(r"[HQOI]MMA|LDSM\S*\.4", opcode):
        return 4
    wide = re.match(r"(IMAD\.WIDE|DADD|DMUL|DFMA|DMNMX|F2F\.F64|I2F\.F64|F2I.*64|CS2R)", opcode)
    return 2 if ".64" in opcode or (wide and ".32" not in opcode) else 1


def _names(part: str, width: int) -> list[str]:
    registers = [int(found) for found in _REGISTER.findall(part)]
    names = [f"R{r + i}" for r in registers for i in range(width)]
    return names + [f"P{found}" for found in _PREDICATE.findall(part)]


def _changed(base: str, parts: list[str]) -> int:
    """A flag that is set or cleared in a register of flags leaves the others as they were."""
    if base == "LOP3" and len(parts) > 4 and parts[0] == parts[1]:
        number = _number(parts[2])
        if number is not None and parts[4] in ("0xc0", "0xfc"):  # a & b, a | b
            return ~number & ALL if parts[4] == "0xc0" else number
    return ALL


def _number(part: str) -> int | None:
    try:
        return int(part, 0) & ALL
    except ValueError:
        return None


def _bits(opcode: str, base: str, parts: list[str], sources: list[str]) -> Callable[[State], int]:
    """The bits of the results that may differ, from those of the sources."""

    def any_source(state: State) -> int:
        return ALL if any(name in state for name in sources) else 0

    if _DIFFERS.match(opcode):
        return lambda _: ALL
    if _ONE_VALUE.match(opcode):
        return lambda _: 0
    if base == "S2R":
        register = parts[0]
        bits = 0x1F if register in ("SR_TID.X", "SR_LANEID") else ALL * ("LANEMASK" in register)
        return lambda _: bits
    numbers = [_number(part) for part in parts]
    if base == "MOV" or opcode.startswith("IMAD.MOV"):
        return lambda state: _union(state, sources)
    if base == "LOP3":
        mask = ALL
        given = next((n for n in numbers[:2] if n is not None), None)
        if given is not None and parts[3] in ("0xc0", "0xfc"):  # a & b, a | b
            mask = given if parts[3] == "0xc0" else ~given & ALL
        return lambda state: _union(state, sources) & mask
    if opcode.startswith("SHF.R.") and parts[0] == "RZ" and numbers[1] is not None:
        by, signed = numbers[1], ".S32" in opcode

        def right(state: State) -> int:
            bits = _union(state, _names(parts[2], 1))
            return ALL if signed and bits >> 31 else bits >> by

        return right
    shift = None
    if opcode.startswith("SHF.L.U32") and parts[2] == "RZ":
        shift = numbers[1]
    elif opcode.startswith("IMAD.SHL") and numbers[1]:
        shift = numbers[1].bit_length() - 1
    if shift is not None:
        by_left = shift
        return lambda state: _union(state, sources) << by_left & ALL
    if opcode in ("LEA.HI", "LEA.HI.SX32") and numbers[-1] and parts[2] == "RZ":
        away = 32 - numbers[-1]

        def shifted_sum(state: State) -> int:
            shifted = _union(state, _names(parts[0], 1))
            if shifted >> away or (shifted >> 31 and "SX32" in opcode):
                return ALL
            return _union(state, _names(parts[1], 1))

        return shifted_sum
    if base == "ISETP" and (bound := _bound(opcode, numbers)) is not None:
        # The same for all lanes if they differ only in bits below every change of the answer.
        register = _names(parts[0], 1)

        def compared(state: State) -> int:
            step = 1 << _union(state, register).bit_length()
            return ALL * (bound % step != 0 or any(n in state for n in sources[len(register) :]))

        return compared
    return any_source


def _bound(opcode: str, numbers: list[int | None]) -> int | None:
    """Where a comparison of x with a number, other than for equality, changes as x grows."""
    if len(numbers) < 2 or numbers[0] is not None or numbers[1] is None or ".EX" in opcode:
        return None
    if re.match(r"ISETP\.(GT|LE)\b", opcode):
        return numbers[1] + 1
    return numbers[1] if re.match(r"ISETP\.(GE|LT)\b", opcode) else None


def _union(state: State, names: list[str]) -> int:
    bits = 0
    for name in names:
        bits |= state.get(name, 0)
    return bits
