"""Whether all lanes of a warp are together where an instruction of the machine code needs them.

mma and ldmatrix are undefined unless all 32 lanes execute them at once, and so are barriers of the
warp or the block in a branch that only some lanes take. Two rules, both on the control flow graph:

- Such an instruction is not executed under a condition that may differ between lanes: it depends
  on no branch that can part them.
- On every path to mma and ldmatrix, lanes that have parted have met again: at the BSYNC that ends
  the region of the branch, at a barrier of the warp (WARPSYNC.ALL) or of the block (BAR).

lanes.py finds the branches that may part lanes. This is checked only for sm_90: the code of the
other targets comes from the same sources, and has instructions that lanes.py does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import lanes

#: What needs all lanes at once, and the barriers that lanes must reach together or not at all.
WHOLE_WARP = re.compile(r"([A-Z]?MMA|LDSM|STSM|MOVM)\b|[HIDBQO]MMA\b")
BARRIER = re.compile(r"WARPSYNC\.ALL\b|BAR\.SYNC\b|BAR\.RED\b")
TARGET = "sm_90"
EXIT = -1  # the block behind all others


@dataclass
class Instruction:
    address: int
    guard: str  # "P0" or "!P0" of "@!P0 ..."
    opcode: str
    operands: str

    def __post_init__(self) -> None:
        self.base = self.opcode.split(".")[0]

    @property
    def target(self) -> int:
        found = re.search(r"0x([0-9a-f]+)\s*$", self.operands)
        return int(found[1], 16) if found else -1

    @property
    def is_branch(self) -> bool:
        """What ends a block; BRA.DIV leads to the same work for lanes that are apart already."""
        jumps = self.base in ("BRA", "BRX", "JMP", "EXIT", "RET")
        return jumps and not self.opcode.startswith("BRA.DIV")

    @property
    def is_conditional(self) -> bool:
        return bool(self.guard) or (self.base == "BRA" and "P" in self.operands.split("0x")[0])

    @property
    def is_predicated(self) -> bool:
        return bool(self.guard) and not self.guard.lstrip("!").startswith("UP")

    def may_part(self, state: lanes.State) -> bool:
        """Whether lanes may go different ways here, given what differs between them."""
        names = re.findall(r"\b[RP]\d+\b", f"{self.guard} {self.operands}")
        return any(name in state for name in names)


@dataclass
class Block:
    instructions: list[Instruction] = field(default_factory=list)
    next: list[int] = field(default_factory=list)


def problems(listing: Iterable[Instruction]) -> list[str]:
    """The instructions that need all lanes but may not have them: opcode, address and reason."""
    graph = _graph(list(listing))
    needs = {
        i: [x for x in block.instructions if WHOLE_WARP.match(x.opcode) or BARRIER.match(x.opcode)]
        for i, block in graph.items()
    }
    if not any(WHOLE_WARP.match(x.opcode) for found in needs.values() for x in found):
        return []
    ends = _Ends(graph)
    parting, dependent = _parting(graph, ends)
    together = _together(graph, parting)
    said = []
    for i, found in needs.items():
        for x in found:
            where = f"{x.opcode} at {x.address:#x}"
            if x.is_predicated:
                said.append(f"{where} is predicated")
            elif i in dependent:
                said.append(f"{where} is in a branch that some lanes take")
            elif WHOLE_WARP.match(x.opcode) and not together.get(x.address, False):
                said.append(f"{where} follows a branch after which the lanes have not met")
    return sorted(said, key=lambda line: not WHOLE_WARP.match(line))


def predicated(listing: Iterable[Instruction]) -> list[str]:
    """What needs all lanes and has a predicate of each lane: the part that all targets share."""
    return [
        f"{x.opcode} at {x.address:#x} is predicated"
        for x in listing
        if x.is_predicated and WHOLE_WARP.match(x.opcode)
    ]


def _graph(listing: list[Instruction]) -> dict[int, Block]:
    """Blocks by their first address.

    A jump by a table may lead to whatever nothing else leads to, up to the end of its region.
    """
    while listing and listing[-1].base in ("NOP", "BRA"):  # the padding
        if listing[-1].base == "BRA" and listing[-1].target != listing[-1].address:
            break
        listing.pop()
    starts = {x.target for x in listing if x.base in ("BRA", "BSSY", "JMP") and x.is_branch}
    starts |= {x.target for x in listing if x.base in ("BSSY", "CALL")} | {listing[0].address}
    starts |= {y.address for x, y in pairwise(listing) if x.base == "CALL"}
    starts |= {y.address for x, y in pairwise(listing) if x.is_branch}
    graph: dict[int, Block] = {}
    for x in listing:
        if x.address in starts:
            current = graph[x.address] = Block()
        current.instructions.append(x)
    order = sorted(graph)
    led_to = {order[0]}
    for i, after in zip(order, [*order[1:], EXIT], strict=True):
        block, last = graph[i], graph[i].instructions[-1]
        if last.base in ("BRA", "JMP") and last.is_branch:
            block.next = [last.target if last.target in graph else EXIT]
        elif last.base in ("EXIT", "RET"):
            block.next = [EXIT]
        if not last.is_branch or last.is_conditional:
            block.next = [*block.next, after]
        led_to.update(block.next)
    calls = {x.target for x in listing if x.base == "CALL"}
    tables = [i for i in order if i not in led_to and i not in calls]
    regions = [(x.address, x.target) for x in listing if x.base == "BSSY"]
    for i, block in graph.items():
        if block.instructions[-1].base == "BRX":
            end = max(((a, b) for a, b in regions if a < i < b), default=(0, max(order) + 1))[1]
            block.next = [*block.next, *(j for j in tables if i < j < end)] or [EXIT]
    return graph


class _Ends:
    """The post-dominators of each block; sets of blocks are bits."""

    def __init__(self, graph: dict[int, Block]) -> None:
        self._graph = graph
        self._order = sorted(graph, reverse=True)
        self._bit = {i: 1 << n for n, i in enumerate(self._order)}
        everything = (1 << len(self._order)) - 1
        self._through = {**dict.fromkeys(self._order, everything), EXIT: 0}
        changed = True
        while changed:
            changed = False
            for i in self._order:
                common = everything
                for j in graph[i].next:
                    common &= self._through[j]
                if (found := common | self._bit[i]) != self._through[i]:
                    self._through[i], changed = found, True

    def dependents(self, branches: set[int]) -> set[int]:
        """The blocks that are executed or not depending on the branches at the end of these."""
        found = 0
        work = list(branches)
        while work:
            i = work.pop()
            more = 0
            for j in self._graph[i].next:
                more |= self._through[j] & ~(self._through[i] & ~self._bit[i])
            work += [j for j in self._blocks(more & ~found) if len(self._graph[j].next) > 1]
            found |= more
        return set(self._blocks(found))

    def _blocks(self, bits: int) -> Iterator[int]:
        while bits:
            lowest = bits & -bits
            yield self._order[lowest.bit_length() - 1]
            bits ^= lowest


def _parting(graph: dict[int, Block], ends: _Ends) -> tuple[set[int], set[int]]:
    """The blocks that end with a branch that lanes may take apart; those that depend on them."""
    effects = {
        i: [lanes.effect(x.opcode, x.operands, x.guard) for x in block.instructions]
        for i, block in graph.items()
    }
    for i, call in _calls(graph, effects).items():
        effects[i].append(call)
    parting: set[int] = set()
    dependent: set[int] = set()
    while True:  # what lanes compute apart differs, and may part them again
        found = {
            i
            for i, state in _flow(graph, effects, dependent).items()
            if len(graph[i].next) > 1 and graph[i].instructions[-1].may_part(state)
        }
        if found <= parting:
            return parting, dependent
        parting |= found
        dependent = ends.dependents(parting)


def _flow(
    graph: dict[int, Block],
    effects: dict[int, list[lanes.Effect]],
    dependent: set[int],
) -> dict[int, lanes.State]:
    """What may differ between lanes at the end of each block that is reached."""
    start = min(graph)
    begin: dict[int, lanes.State] = {start: {}}
    end: dict[int, lanes.State] = {}
    work = [start]
    while work:
        i = work.pop()
        state = dict(begin[i])
        lanes.run(effects[i], state, i in dependent)
        end[i] = state
        for j in graph[i].next:
            if j == EXIT:
                continue
            old = begin.get(j)
            if old is None:
                begin[j] = dict(state)
            else:
                changed = False
                for name, bits in state.items():
                    both = old.get(name, 0) | bits
                    changed |= both != old.get(name, 0)
                    old[name] = both
                if not changed:
                    continue
            work.append(j)
    return end


def _calls(
    graph: dict[int, Block], effects: dict[int, list[lanes.Effect]]
) -> dict[int, lanes.Effect]:
    """What the function does as a whole that a block calls at its end, a division for example."""
    calls: dict[int, lanes.Effect] = {}
    for i, block in graph.items():
        if block.instructions[-1].base != "CALL":
            continue
        work, inside = [block.instructions[-1].target], set()
        while work:
            j = work.pop()
            if j in graph and j not in inside:
                inside.add(j)
                work += graph[j].next
        results: dict[str, None] = {}
        sources: dict[str, None] = {}
        for e in (e for j in sorted(inside) for e in effects[j]):
            sources |= dict.fromkeys(name for name in e.sources if name not in results)
            results |= dict.fromkeys(e.results)
        calls[i] = lanes.whole(list(results), list(sources))
    return calls


def _together(graph: dict[int, Block], parting: set[int]) -> dict[int, bool]:
    """By address: whether the lanes are together before an instruction, on every path to it."""
    start = min(graph)
    # whether they are, and the barriers of the regions that began together
    begin: dict[int, tuple[bool, frozenset[str]]] = {start: (True, frozenset())}
    result: dict[int, bool] = {}
    work = [start]
    while work:
        i = work.pop()
        whole, regions = begin[i]
        for x in graph[i].instructions:
            result[x.address] = whole
            if BARRIER.match(x.opcode):
                whole = True
            elif x.base == "BSSY":
                name = {x.operands.split(",")[0]}
                regions = regions | name if whole else regions - name
            elif x.base == "BSYNC":
                whole = x.operands.strip() in regions
        state = (whole and i not in parting, regions)
        for j in graph[i].next:
            if j == EXIT:
                continue
            old = begin.get(j)
            new = state if old is None else (old[0] and state[0], old[1] & state[1])
            if new != old:
                begin[j] = new
                work.append(j)
    return result
