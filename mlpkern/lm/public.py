"""The public names of `mlpkern.lm`, which imports this module when the first of them is used."""

from __future__ import annotations

from mlpkern.lm import plots
from mlpkern.lm.analysis.compare import Comparison, compare
from mlpkern.lm.analysis.ngram import NGram, ngram
from mlpkern.lm.analysis.report import Report, report, report_on
from mlpkern.lm.analysis.run_list import ListedRun, list_runs
from mlpkern.lm.analysis.sample import NewWords, sample, sample_new
from mlpkern.lm.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    LMError,
    MissingPackageError,
    NonFiniteLossError,
)
from mlpkern.lm.many.found_lr import FoundLR, Trials, find_lr
from mlpkern.lm.many.lr_finder import LRCurve, lr_finder
from mlpkern.lm.many.population import Population
from mlpkern.lm.many.train_population import load_population, population
from mlpkern.lm.many.trained import BestModel, Trained
from mlpkern.lm.model.config import PRESETS, TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.saved.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.search.folder import SweepFolder
from mlpkern.lm.search.plan import SweepPlan, read_plan
from mlpkern.lm.search.rungs import sweep
from mlpkern.lm.search.space import Choice, Range, SearchSpace
from mlpkern.lm.training.engines import (
    ENGINES,
    Engine,
    OpsEngine,
    RunEngine,
    StockEngine,
    choose_engine,
)
from mlpkern.lm.training.evaluation import Metrics, evaluate
from mlpkern.lm.training.overfit import Overfit, lowest_loss, overfit_batch
from mlpkern.lm.training.stop_signal import Interrupted
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import Dataset, Split, build_dataset, split_words, windows
from mlpkern.lm.words.describe import describe_dataset, show_windows
from mlpkern.lm.words.download import makemore_names
from mlpkern.lm.words.text import TextOptions
from mlpkern.lm.words.vocab import Vocab
from mlpkern.lm.words.word_file import embedded_names, read_words

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
    "FoundLR",
    "Interrupted",
    "LMError",
    "LRCurve",
    "ListedRun",
    "MLPLanguageModel",
    "Metrics",
    "MissingPackageError",
    "NGram",
    "NewWords",
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
    "Trials",
    "Vocab",
    "build_dataset",
    "choose_engine",
    "compare",
    "describe_dataset",
    "embedded_names",
    "evaluate",
    "find_lr",
    "list_runs",
    "load_checkpoint",
    "load_model",
    "load_population",
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
    "sample_new",
    "save_checkpoint",
    "show_windows",
    "split_words",
    "sweep",
    "windows",
]
