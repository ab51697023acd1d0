"""The errors of ``cross_entropy``."""

from __future__ import annotations

import pytest
import torch
from support.op_problems import checked

from mlpkern import cross_entropy


@pytest.mark.parametrize(
    ("shape", "position", "value"),
    [
        ((8, 27), (5,), 27),
        ((8, 27), (0,), -1),
        ((8, 27), (7,), -101),
        ((8, 27), (6,), 30_000),
        ((2, 27, 3, 4), (1, 2, 3), 27),
        ((2, 27, 3), (0, 1), -2),
    ],
)
def test_target_out_of_range(backend, device, shape, position, value):
    logits = torch.randn(shape, device=device)
    target = torch.randint(0, 27, shape[:1] + shape[2:])
    target[position] = value
    if backend in ("cuda", "triton"):  # count the rows of all axes
        position = (int(torch.arange(target.numel()).view(target.shape)[position]),)
    where = ", ".join(map(str, position))
    message = rf"^cross_entropy: target\[{where}\] is {value}, expected 0 <= target < 27"
    for dtype in (torch.int16, torch.int32, torch.int64):
        for needs_grad in (True, False):
            logits.requires_grad_(needs_grad)
            with pytest.raises(IndexError, match=message + r" \(or ignore_index -100\)$"):
                checked(cross_entropy, logits, target.to(device, dtype))
            with pytest.raises(IndexError, match=message + r" \(or ignore_index 4\)$"):
                checked(cross_entropy, logits, target.to(device, dtype), ignore_index=4)


def test_target_out_of_range_without_a_batch(backend, device):
    message = r"^cross_entropy: target(\[0\])? is 5, expected 0 <= target < 5"
    with pytest.raises(IndexError, match=message):
        checked(cross_entropy, torch.randn(5, device=device), torch.tensor(5, device=device))


def test_uint8_target_out_of_range(backend, device):
    target = torch.tensor([0, 200], dtype=torch.uint8, device=device)
    with pytest.raises(IndexError, match=r"target\[1\] is 200, expected 0 <= target < 200"):
        checked(cross_entropy, torch.randn(2, 200, device=device), target)


def test_the_default_ignore_index_is_out_of_range_when_another_is_named(backend, device):
    target = torch.tensor([0, -100], device=device)
    with pytest.raises(IndexError, match=r"target\[1\] is -100"):
        checked(cross_entropy, torch.randn(2, 5, device=device), target, ignore_index=-1)


def test_no_class_at_all(backend, device):
    logits = torch.empty(3, 0, device=device)
    message = "^cross_entropy: (input must have at least one class|.*expected 0 <= target < 0)"
    with pytest.raises((ValueError, IndexError), match=message):
        checked(cross_entropy, logits, torch.zeros(3, dtype=torch.int64, device=device))


X, T = torch.randn(32, 27), torch.randint(0, 27, (32,))
Q, W = torch.rand(32, 27), torch.rand(27)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X.tolist(), T), {}, TypeError, "input must be a torch.Tensor, got list"),
        ((X, 3), {}, TypeError, "target must be a torch.Tensor, got int"),
        ((X, T, [1.0]), {}, TypeError, "weight must be a torch.Tensor, got list"),
        ((X.int(), T), {}, TypeError, "input must be float32, .*, got int32"),
        ((X, T.bool()), {}, TypeError, "target must be uint8, int16, .*, got bool"),
        ((X, T.to(torch.int8)), {}, TypeError, "target must be uint8, int16, .*, got int8"),
        ((X, T, W.double()), {}, TypeError, "weight must be float32 like input, got float64"),
        ((X, T), {"ignore_index": 0.5}, TypeError, "ignore_index must be an int, got float"),
        ((X, T), {"label_smoothing": "a"}, TypeError, "label_smoothing must be a float, got str"),
        ((X[0, 0], T), {}, ValueError, "input must be .*, got ()"),
        (
            (X, T[1:]),
            {},
            ValueError,
            r"target must be \(32,\) class ids to match input \(32, 27\), got \(31,\)$",
        ),
        ((X, T[:, None]), {}, ValueError, r"target must be \(32,\) .* got \(32, 1\)$"),
        ((X[0], T), {}, ValueError, r"target must be \(\) class ids .* got \(32,\)$"),
        ((X[None], T), {}, ValueError, r"target must be \(1, 27\) class ids .* got \(32,\)$"),
        ((X, T.float()), {}, ValueError, r".* probabilities and must be \(32, 27\) .* \(32,\)$"),
        ((X, Q), {"ignore_index": 3}, ValueError, "ignore_index must be negative .* got 3"),
        ((X, T, W[1:]), {}, ValueError, r"weight must be \(27,\) .* got \(26,\)$"),
        ((X, T, W[None]), {}, ValueError, r"weight must be \(27,\) .* got \(1, 27\)$"),
        ((X, T), {"reduction": "avg"}, ValueError, "reduction must be 'none', .* got 'avg'"),
        ((X, T), {"label_smoothing": 1.5}, ValueError, "label_smoothing must be .* got 1.5"),
        ((X, T), {"label_smoothing": -0.1}, ValueError, "label_smoothing must be .* got -0.1"),
        ((X, T), {"label_smoothing": float("nan")}, ValueError, "label_smoothing .* got nan"),
        ((X, T.to("meta")), {}, ValueError, "target must be on cpu like input, got meta"),
        ((X, T, W.to("meta")), {}, ValueError, "weight must be on cpu like input, got meta"),
    ],
)
def test_bad_arguments(arguments, options, error, message):
    with pytest.raises(error, match=f"^cross_entropy: {message}"):
        cross_entropy(*arguments, **options)
