"""The files that a population in a folder leaves: tables, curves, the best run."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.lm.kept import CONFIGS, FEW, OPTIONS, agree, rows_of
from support.lm.population import BASE, DATASET
from support.lm.training import same_bits

from mlpkern import lm
from mlpkern.lm.errors import MissingPackageError
from mlpkern.lm.many.kept.folder import PopulationFolder
from mlpkern.lm.model.config import SETTINGS
from mlpkern.lm.model.setting import setting_text


def test_the_files_hold_the_results(tmp_path):
    trained = lm.population(CONFIGS, FEW, folder=tmp_path / "many", parquet=False, **OPTIONS)
    folder = PopulationFolder(tmp_path / "many")
    names = {"population.json", "results.csv", "curves.csv", "models", "best"}
    assert set(os.listdir(folder.path)) == names
    for i, (row, one) in enumerate(zip(rows_of(folder.results), trained, strict=True)):
        assert int(row["model"]) == i
        assert all(row[n] == setting_text(getattr(one.config, n)) for n in SETTINGS)
        for name, value in {
            "dev_loss": one.dev.loss, "dev_accuracy": one.dev.accuracy,
            "best_dev_loss": one.best.dev.loss, "train_loss": one.losses[-1].item(),
        }.items():  # fmt: skip
            assert float(row[name]) == pytest.approx(value, abs=1e-6)
        steps = (one.best.step, one.state.step)
        assert (int(row["best_step"]), int(row["step"])) == steps
        assert (row["stopped"], row["diverged"]) == ("", "False")
        assert float(row["seconds"]) == pytest.approx(one.seconds, abs=1e-3)
    curves = rows_of(folder.curves)
    for i, one in enumerate(trained):
        own = [row for row in curves if int(row["model"]) == i]
        assert [np.float32(row["train_loss"]) for row in own] == one.losses.tolist()
        log = [(row.step, row.lr) for row in one.log_rows()]
        assert [(int(row["step"]), float(row["lr"])) for row in own] == log
    agree(lm.load_population(folder.path, FEW), trained)
    best = min(trained, key=lambda one: one.best.dev.loss)
    loaded = lm.load_checkpoint(folder.best.path, checkpoint=None)
    assert same_bits(loaded.parameters, best.best.model.state_dict())


def test_a_model_that_stopped_is_told_in_the_tables(tmp_path):
    bad = replace(BASE, seed=1, lr=((0, 0.1), (60, 1e38)))
    for _ in range(2):  # the second time from the files
        with pytest.warns(RuntimeWarning, match=r"configuration 1 stopped at step 6\d: "):
            trained = lm.population([BASE, bad], DATASET, folder=tmp_path)
    row = rows_of(tmp_path / "results.csv")[1]
    assert int(row["stopped"]) == trained[1].stopped
    last = trained[1].stopped
    assert int(rows_of(tmp_path / "curves.csv")[-1]["step"]) == last
    assert float(row["train_loss"]) == pytest.approx(trained[1].losses[last - 1].item(), abs=1e-6)


def test_parquet_holds_the_numbers_of_the_csv(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    lm.population([BASE, replace(BASE, seed=1)], DATASET, folder=tmp_path)  # it is installed
    columns = parquet.read_table(tmp_path / "curves.parquet").to_pydict()
    rows = rows_of(tmp_path / "curves.csv")
    assert list(columns) == list(rows[0])
    assert columns["model"] == [int(row["model"]) for row in rows]
    assert columns["step"] == [int(row["step"]) for row in rows]
    assert columns["train_loss"] == [np.float32(row["train_loss"]) for row in rows]
    assert columns["lr"] == [float(row["lr"]) for row in rows]


def test_without_pyarrow_there_is_the_csv_alone_or_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    lm.population([BASE], DATASET, folder=tmp_path / "csv")
    assert (tmp_path / "csv" / "curves.csv").is_file()
    assert not (tmp_path / "csv" / "curves.parquet").exists()
    with pytest.raises(MissingPackageError, match=r"pip install 'mlpkern\[parquet\]'"):
        lm.population([BASE], DATASET, folder=tmp_path / "many", parquet=True)
    assert not (tmp_path / "many").exists()


def test_a_run_of_tensorboard_for_each_model(tmp_path):
    pytest.importorskip("tensorboard", reason="the event files need the package tensorboard")
    lm.population([BASE, replace(BASE, seed=1)], DATASET, folder=tmp_path, tensorboard=True)
    found = sorted(path.parent.name for path in tmp_path.glob("tensorboard/*/events.*"))
    assert found == ["0", "1"]
