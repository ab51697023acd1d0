"""What a run says about a loaded machine, and what a short one leaves out."""

from __future__ import annotations

import pytest
from support.bench.tiny import CASE, MACHINE, SETTINGS, suite_with

from bench import report, run
from bench.core import limits, load
from bench.shown.records import records_markdown
from bench.suites import SUITES
from bench.training import case as training_case


def test_the_load_is_the_share_of_others(monkeypatch, tmp_path):
    ticks = iter(["100 0 0 100 0 0 0 0"] * 2 + ["104 0 2 112 0 0 0 2"] * 2)
    monkeypatch.setattr(load, "_times", lambda: [int(n) for n in next(ticks).split()])
    monkeypatch.setattr(load.time, "process_time", lambda: 0.0)
    told = load.Load().told()
    assert told["busy"] == told["most"] == pytest.approx(0.4)
    assert told["stolen"] == pytest.approx(0.1)
    monkeypatch.setattr(load, "_times", lambda: None)
    assert load.Load().told()["busy"] is None


def test_a_short_run_takes_the_most_important_first_and_says_what_it_left_out(monkeypatch):
    picked = run.training_first(run.chosen(run.parse(["--quick"])))
    suites = [suite.name for suite, _ in picked]
    assert picked[0][1] is training_case.LECTURE
    assert set(suites[:7]) == {suite.name for suite in SUITES}
    assert sorted(c.name for _, c in picked) == sorted(
        c.name for s in SUITES for c in s.cases if c.quick
    )
    monkeypatch.setattr(limits, "measure", lambda *args, **kwargs: MACHINE)
    short = run.run([(suite_with(), CASE)], SETTINGS, seconds=0)
    assert short["cases"] == []
    assert any(f"{CASE.name}: not run" in line for line in report.full_text(short).splitlines())


def test_all_records_stand_side_by_side_and_one_after_the_other():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "measure", lambda *args, **kwargs: MACHINE)
        result = run.run([(suite_with(), CASE)], SETTINGS)
    narrow = {"mlpkern_isa": "avx2", "isas": ["avx512", "avx2"]}
    other = {**result, "cases": [], "machine": result["machine"] | narrow}
    page = records_markdown([other, result])
    row = next(line for line in page.splitlines() if line.startswith("| cross_entropy 8×5 |"))
    assert row.split("|")[2].strip() == "–"
    assert row.endswith("x) |")
    assert page.count("\n## ") == 2
    assert "avx2 (by MLPKERN_ISA; the CPU has avx512)" in page
