"""The makemore MLP language model on the fused ops: data, model, trainer, checkpoints, sampling.

    words -> data.py -> Dataset -> train.py (engines.py, state.py) -> checkpoint.py -> sample.py
                                   lr_finder.py, population.py: many models in one call
    a run's folder -> report.py, compare.py, plots/; words -> ngram.py, the baseline; describe.py

>>> import torch
>>> from mlpkern import lm
>>> dataset = lm.build_dataset(lm.embedded_names(), block_size=3)
>>> engine, why = lm.choose_engine("auto", torch.device("cpu"))
>>> trainer = lm.Trainer.start(lm.PRESETS["quick"], dataset, engine)
>>> trainer.train()
>>> lm.sample(trainer.state.model, dataset.vocab, 3)
"""

from __future__ import annotations

from mlpkern.lm import plots
from mlpkern.lm.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from mlpkern.lm.compare import Comparison, compare
from mlpkern.lm.config import PRESETS, TrainConfig
from mlpkern.lm.data import (
    Dataset,
    Split,
    build_dataset,
    embedded_names,
    read_words,
    split_words,
    windows,
)
from mlpkern.lm.describe import describe_dataset, show_windows
from mlpkern.lm.download import makemore_names
from mlpkern.lm.engines import (
    ENGINES,
    Engine,
    OpsEngine,
    RunEngine,
    StockEngine,
    choose_engine,
)
from mlpkern.lm.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    LMError,
    MissingPackageError,
    NonFiniteLossError,
)
from mlpkern.lm.evaluate import Metrics, evaluate
from mlpkern.lm.lr_finder import LRCurve, lr_finder
from mlpkern.lm.model import MLPLanguageModel
from mlpkern.lm.ngram import NGram, ngram
from mlpkern.lm.overfit import Overfit, lowest_loss, overfit_batch
from mlpkern.lm.population import Population, population
from mlpkern.lm.report import Report, report, report_on
from mlpkern.lm.run_folder import RunFolder
from mlpkern.lm.sample import sample
from mlpkern.lm.search_space import Choice, Range, SearchSpace
from mlpkern.lm.state import TrainState
from mlpkern.lm.stop_signal import Interrupted
from mlpkern.lm.sweep import sweep
from mlpkern.lm.sweep_folder import SweepFolder
from mlpkern.lm.sweep_plan import SweepPlan, read_plan
from mlpkern.lm.text import TextOptions
from mlpkern.lm.train import Trainer
from mlpkern.lm.trained import BestModel, Trained
from mlpkern.lm.vocab import Vocab

__all__ = [
    "ENGINES",
    "PRESETS",
    "BestModel",
    "Checkpoint",
    "CheckpointError",
    "Choice",
    "Comparison",
    "ConfigError",
    "DataError",
    "Dataset",
    "Engine",
    "Interrupted",
    "LMError",
    "LRCurve",
    "MLPLanguageModel",
    "Metrics",
    "MissingPackageError",
    "NGram",
    "NonFiniteLossError",
    "OpsEngine",
    "Overfit",
    "Population",
    "Range",
    "Report",
    "RunEngine",
    "RunFolder",
    "SearchSpace",
    "Split",
    "StockEngine",
    "SweepFolder",
    "SweepPlan",
    "TextOptions",
    "TrainConfig",
    "TrainState",
    "Trained",
    "Trainer",
    "Vocab",
    "build_dataset",
    "choose_engine",
    "compare",
    "describe_dataset",
    "embedded_names",
    "evaluate",
    "load_checkpoint",
    "load_model",
    "lowest_loss",
    "lr_finder",
    "makemore_names",
    "ngram",
    "overfit_batch",
    "plots",
    "population",
    "read_plan",
    "read_words",
    "report",
    "report_on",
    "sample",
    "save_checkpoint",
    "show_windows",
    "split_words",
    "sweep",
    "windows",
]
