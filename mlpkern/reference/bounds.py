"""The check of ids and targets, and the one text of its error."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def check_ids(
    op: str,
    argument: str,
    ids: torch.Tensor,
    limit: int,
    *,
    noun: str = "id",
    ignore_index: int | None = None,
) -> None:
    """Raise IndexError for the first of ``ids`` outside [0, limit), unless it is ``ignore_index``.

    Within vmap, grad and the other transforms of torch.func the tensor below the wrappers is
    checked, that is, the ids of all examples at once. A tensor without data (FakeTensor, meta)
    has nothing to check.
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(ids):
        ids = torch._C._functorch.get_unwrapped(ids)
    if ids.is_meta or type(ids) is not torch.Tensor:
        return
    wide = ids.long()  # a comparison in uint8 would wrap a negative ignore_index around
    bad = (wide < 0) | (wide >= limit)
    if ignore_index is not None:
        bad &= wide != ignore_index
    if not bad.any():
        return
    position = bad.nonzero()[0].tolist()
    value = int(wide[tuple(position)])
    raise IndexError(id_message(op, argument, position, value, limit, noun, ignore_index))


def check_ids_together(op: str, checks: Sequence[tuple[str, torch.Tensor, int, str]]) -> None:
    """`check_ids` of several (argument, ids, limit, noun) in order, waiting for a GPU only once."""
    ends = [part for _, ids, _, _ in checks if ids.numel() for part in torch.aminmax(ids)]
    if not ends:
        return
    found = torch.stack([end.long() for end in ends]).tolist()
    limits = [limit for _, ids, limit, _ in checks if ids.numel()]
    lowest, highest = found[::2], found[1::2]
    if min(lowest) < 0 or any(h >= limit for h, limit in zip(highest, limits, strict=True)):
        for argument, ids, limit, noun in checks:
            check_ids(op, argument, ids, limit, noun=noun)


def id_message(
    op: str,
    argument: str,
    position: list[int],
    value: int,
    limit: int,
    noun: str = "id",
    ignore_index: int | None = None,
) -> str:
    """For example ``embedding_gather: input[3, 1] is 27, expected 0 <= id < 27``."""
    where = f"{argument}[{', '.join(map(str, position))}]" if position else argument
    other = "" if ignore_index is None else f" (or ignore_index {ignore_index})"
    return f"{op}: {where} is {value}, expected 0 <= {noun} < {limit}{other}"
