"""The exercises: unsolved they say what is missing, solved they pass.

The solution of an exercise is a file of ``notebook_solutions``, which takes the place of its stub.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from notebooks import execute

pytest.importorskip("matplotlib", reason="the first cell of the notebook would install it")

SOLUTIONS = Path(__file__).with_name("notebook_solutions")
CELLS = {cell["id"]: cell for cell in execute.code_cells(execute.read(execute.EXERCISES))}
NAMES = [name.removesuffix("-stub") for name in CELLS if name.endswith("-stub")]


@pytest.fixture
def said(monkeypatch):
    """What the check of an exercise says with this code after its stub."""
    monkeypatch.delenv("MLPKERN_NAMES", raising=False)

    def after(exercise: str, code: str = "") -> str:
        namespace: dict = {}
        own = {"id": f"{exercise} solved", "source": [code]}
        for cell in ("install", "setup", f"{exercise}-stub"):
            execute.execute(CELLS[cell], namespace)
        execute.execute(own, namespace)
        [output] = execute.execute(CELLS[f"{exercise}-check"], namespace)
        return "".join(output["text"])

    return after


def test_every_exercise_has_a_stub_a_check_and_a_solution():
    assert NAMES == ["tuning", "initialisation", "paper"]
    assert {f"{name}-check" for name in NAMES} <= set(CELLS)
    assert sorted(NAMES) == sorted(path.stem for path in SOLUTIONS.glob("*.py"))


@pytest.mark.parametrize("exercise", NAMES)
def test_the_solution_passes(exercise, said):
    text = said(exercise, (SOLUTIONS / f"{exercise}.py").read_text(encoding="utf-8"))
    assert text.startswith("passed: "), text


@pytest.mark.parametrize(
    ("exercise", "code", "expected"),
    [
        ("tuning", "", r"dev 2\.6\d+, and the bar is 2\.45"),
        ("tuning", "config = {}", "config must be an lm.TrainConfig"),
        ("tuning", "config = lm.TrainConfig(steps=20_001)", "20001 steps; at most 20,000"),
        ("tuning", "config = lm.TrainConfig(batch_size=101)", "2,020,000 rows; at most 2,000,000"),
        ("initialisation", "", "first_loss is still None"),
        ("initialisation", "first_loss = 1.0", r"first_loss is not 1\.0000"),
        ("initialisation", "first_loss = math.log(V)", "spread is still None"),
        (
            "initialisation",
            "first_loss, spread = math.log(V), 201**0.5",
            r"the first loss is \d\d\.\d+: which tensors make logits large\?",
        ),
        (
            "initialisation",
            "first_loss, spread, lecture = math.log(V), 201**0.5, initial_parameters\n"
            "def initial_parameters(D, H, g):\n"
            "    C, W1, b1, W2, b2 = lecture(D, H, g)\n"
            "    return C, W1, b1, 0 * W2, 0 * b2",
            r"\d\d% of tanh are flat, beyond ±0.97: their gradient is nearly 0",
        ),
        ("paper", "", "W3 changes nothing: the logits do not depend on it"),
        (
            "paper",
            "model = logits_of\n"
            "def logits_of(ids, C, W1, b1, W2, b2, W3):\n"
            "    return model(ids, C, W1, b1, W2, b2, W3) * (1 + W3.norm())",
            "what W3 adds must not depend on W2 and b2",
        ),
        ("paper", "def logits_of(*_): return 1 / 0", "your code raises ZeroDivisionError: .*"),
    ],
)
def test_the_check_says_what_is_missing(exercise, code, expected, said):
    text = said(exercise, code)
    assert re.fullmatch(f"not yet: {expected}\n", text), text
