"""Ids and targets out of range in a kernel: recorded on the device, raised by `check_errors`.

Each kind of call has a site, a row of eight int64 words on its device::

    0 lock    1 claimed    2 position    3 value    (the rest keeps rows apart)

A kernel that meets bad ids calls `report`, which keeps the one of the lowest position. Where that
position lies in the tensor, and what was allowed, the host knows by the row.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from mlpkern.reference.bounds import id_message

SITES = 4096  # rows of one device
SHARED_SITES = 256  # the last of them are for kinds of calls that tell no shape, so many share one
_WORDS = 8

NONE = tl.constexpr(2**31 - 1)


@triton.jit
def report(site, base, index, values, bad):
    """Record the first of the tile's ids that are ``bad``; call it for every tile of ids.

    site: pointer from `site_of`. base: int64 scalar; index: int32 tensor of a tile; base + index is
    the flat position of an id in its tensor. values: the ids. bad: whether each is out of range.
    """
    first = tl.min(tl.where(bad, index, NONE))
    if first != NONE:
        value = tl.sum(tl.where(bad & (index == first), values.to(tl.int64), 0))
        report_one(site, base + first.to(tl.int64), value)


@triton.jit
def report_one(site, position, value):
    """Record one bad id: flat position and value, scalars; call it only where it is bad."""
    zero = tl.full([], 0, tl.int64)
    one = tl.full([], 1, tl.int64)
    while tl.atomic_cas(site, zero, one) != 0:  # few programs meet here, and never on good ids
        pass
    if (tl.atomic_or(site + 1, zero) == 0) | (position < tl.atomic_or(site + 2, zero)):
        tl.atomic_xchg(site + 1, one)
        tl.atomic_xchg(site + 2, position.to(tl.int64))
        tl.atomic_xchg(site + 3, value.to(tl.int64))
    tl.debug_barrier()
    tl.atomic_xchg(site, zero)


@dataclass(frozen=True)
class _Site:
    """What the words of a row are about; shape None where the position stays flat."""

    op: str
    shape: torch.Size | None
    limit: int
    ignore_index: int | None

    def error(self, position: int, value: int) -> IndexError:
        where = [position]
        if self.shape is not None:
            flat = torch.tensor(position, dtype=torch.int64, device="cpu")
            where = [int(i) for i in torch.unravel_index(flat, self.shape)]
        argument, noun = ("target",) * 2 if self.op == "cross_entropy" else ("input", "id")
        return IndexError(
            id_message(self.op, argument, where, value, self.limit, noun, self.ignore_index)
        )


@dataclass
class _Record:
    """The rows of one device."""

    words: Tensor  # (SITES, 8) int64
    rows: dict[_Site, Tensor] = field(default_factory=dict)
    sites: list[_Site] = field(default_factory=list)


_records: dict[torch.device, _Record] = {}
_adding = threading.Lock()


def site_of(op: str, ids: Tensor, limit: int, ignore_index: int | None = None) -> Tensor:
    """The words (8,) in which kernels of ``op`` record an id out of [0, limit) of ``ids``.

    The same arguments always get the same words, so that a captured CUDA graph may keep them.
    """
    record = _records.get(ids.device)
    site = _Site(op, ids.shape, limit, ignore_index)
    row = None if record is None else record.rows.get(site)
    return _add(ids.device, site) if row is None else row


def check_errors() -> None:
    """Wait for every device that was used; raise IndexError for the first bad id, and forget it."""
    for device, record in list(_records.items()):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        used = record.words[: len(record.sites)]
        found = used.to("cpu", copy=True)
        claimed = found[:, 1].nonzero().flatten().tolist()
        if not claimed:
            continue
        row = claimed[0]
        for other in claimed:  # another op's bad id stays for the next call
            if record.sites[other].op == record.sites[row].op:
                used[other].zero_()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        raise record.sites[row].error(*found[row, 2:4].tolist())


def _add(device: torch.device, site: _Site) -> Tensor:
    with _adding, torch.inference_mode(False):
        record = _records.get(device)
        if record is None:
            words = torch.zeros(SITES, _WORDS, dtype=torch.int64, device=device)
            record = _records[device] = _Record(words)
        if len(record.sites) >= SITES - SHARED_SITES:
            site = _Site(site.op, None, site.limit, site.ignore_index)
        if site not in record.rows:
            if len(record.sites) == SITES:
                raise RuntimeError(f"{site.op}: more than {SITES} kinds of calls on {device}")
            record.rows[site] = record.words[len(record.sites)]
            record.sites.append(site)
        return record.rows[site]
