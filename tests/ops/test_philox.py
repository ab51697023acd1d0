"""The generator of dropout masks: known answers, the documented layout, the drop rate."""

from __future__ import annotations

import math

import pytest
import torch

from mlpkern.reference.philox import dropout_mask, philox4x32

ONES = 0xFFFFFFFF
# kat_vectors of Random123 for philox4x32-10: counter, key, words
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def scalar_philox(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """Philox in Python integers, which do not overflow."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & ONES, (a >> 32) ^ c[3] ^ k[1], a & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    return c


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    assert philox4x32(torch.tensor(counter), key).tolist() == list(words)
    assert scalar_philox(counter, key) == list(words)


def test_any_number_of_counters_at_once():
    counters = torch.randint(0, 1 << 32, (5, 3, 4))
    key = (0xDEADBEEF, 0x80000001)
    words = philox4x32(counters, key)
    for i in range(5):
        for j in range(3):
            expected = scalar_philox(tuple(counters[i, j].tolist()), key)
            assert words[i, j].tolist() == expected


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 12345, -3])
@pytest.mark.parametrize("units", [1, 4, 10, 13])
def test_mask_has_the_documented_layout(seed, units):
    p, rows, step, layer, stream = 0.3, 5, 2**32 + 9, 2, 77
    mask = dropout_mask(p, rows, units, seed=seed, step=step, layer=layer, stream=stream)
    key = (seed % 2**32, seed % 2**64 // 2**32)
    for n in range(rows):
        for unit in range(units):
            word = scalar_philox((unit // 4, n, 9, stream * 256 + layer), key)[unit % 4]
            expected = 1 / (1 - p) if word >= round(p * 2**32) else 0.0
            assert mask[n, unit].item() == torch.tensor(expected).item()


def test_mask_keeps_the_right_share():
    rows, units = 500, 203
    for p in (0.0, 0.05, 0.5, 0.9):
        mask = dropout_mask(p, rows, units, seed=3, step=0, layer=1, dtype=torch.float64)
        kept = (mask != 0).double().mean().item()
        # six standard deviations of a share of independent draws
        assert abs(kept - (1 - p)) <= 6 * math.sqrt(p * (1 - p) / mask.numel())
        assert mask.unique().tolist() == ([1.0] if p == 0 else [0.0, 1 / (1 - p)])


def test_masks_of_other_steps_layers_streams_and_seeds_are_independent():
    base = {"seed": 1, "step": 5, "layer": 1, "stream": 0}
    first = dropout_mask(0.5, 200, 64, **base) != 0
    for change in ({"seed": 2}, {"seed": 1 + 2**32}, {"step": 6}, {"layer": 0}, {"stream": 1}):
        other = dropout_mask(0.5, 200, 64, **(base | change)) != 0
        agreement = (first == other).double().mean().item()
        assert abs(agreement - 0.5) <= 6 * 0.5 / math.sqrt(first.numel()), change


def test_a_mask_is_part_of_any_larger_one():
    large = dropout_mask(0.4, 33, 50, seed=9, step=2, layer=0)
    assert torch.equal(dropout_mask(0.4, 8, 13, seed=9, step=2, layer=0), large[:8, :13])


def test_scale_is_rounded_once():
    for dtype in (torch.float32, torch.float64):
        mask = dropout_mask(0.1, 4, 8, seed=0, step=0, layer=0, dtype=dtype)
        assert mask.dtype == dtype
        assert mask.max() == torch.tensor(1 / (1 - 0.1), dtype=dtype)


@pytest.mark.parametrize("wrong", [{"p": 1.0}, {"p": -0.1}, {"layer": 256}, {"stream": 1 << 24}])
def test_values_out_of_range(wrong):
    good = {"p": 0.5, "rows": 2, "units": 3, "seed": 0, "step": 0, "layer": 0}
    with pytest.raises(ValueError, match=r"^dropout_mask: (p|layer) must be 0 <= (p|layer) <"):
        dropout_mask(**(good | wrong))
