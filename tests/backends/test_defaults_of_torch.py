"""torch's default dtype and device have no effect: a run has the same bits under all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.lm.training import trainer
from support.lm.words import make_words

import mlpkern
from mlpkern import lm
from mlpkern.lm.model.config import TrainConfig
from mlpkern.reference.philox import dropout_mask

SETTINGS = {
    "embedding_dim": 4, "hidden": (16,), "batch_size": 8, "steps": 20, "log_every": 7,
    "eval_every": 10, "checkpoint_every": 11,
}  # fmt: skip
PLAIN = TrainConfig(**SETTINGS)
OPTIONS = TrainConfig(
    **SETTINGS, optimizer="adamw", lr=((0, 0.01),), schedule="cosine", warmup=3, weight_decay=0.1,
    input_dropout=0.1, hidden_dropout=0.2, max_grad_norm=1.0, label_smoothing=0.1,
)  # fmt: skip


@contextmanager
def both_defaults() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> list:
    return everything(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("changed", [both_defaults, lambda: torch.device("meta")])
def test_every_bit_is_that_of_plain_defaults(changed, plain, tmp_path):
    with changed():
        found = everything(tmp_path)
    assert [name for name, _ in found] == [name for name, _ in plain]
    for (name, got), (_, expected) in zip(found, plain, strict=True):
        if isinstance(expected, torch.Tensor):
            assert (got.dtype, got.device) == (expected.dtype, expected.device), name
            # nan where a sweep has ended
            assert torch.equal(got.isnan(), expected.isnan()), name
            assert torch.equal(got.nan_to_num(), expected.nan_to_num()), name
        else:  # repr gives every digit, and is the same for nan, the error of a single row
            assert repr(got) == repr(expected), name


NEEDS_DEVICE = {"arange", "asarray", "as_tensor", "empty", "eye", "full", "linspace", "logspace",
                "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor",
                "tril_indices", "triu_indices", "zeros"}  # fmt: skip
NEEDS_DTYPE = NEEDS_DEVICE - {"arange", "randint", "randperm", "tril_indices", "triu_indices"}


def test_every_tensor_made_from_nothing_names_its_device_and_dtype():
    package = Path(mlpkern.__file__).parent
    silent = []
    for path in sorted(package.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                if getattr(call.func.value, "id", "") != "torch":
                    continue
                name, given = call.func.attr, {keyword.arg for keyword in call.keywords}
                needed = {"device"} if name in NEEDS_DEVICE else set()
                needed |= {"dtype"} if name in NEEDS_DTYPE else set()
                if needed - given:
                    silent.append(f"{path.relative_to(package)}:{call.lineno}: torch.{name}")
    assert not silent


def everything(folder) -> list:
    """(name, value) of all results, on one thread: torch's products depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return language_model(folder) + arrays()
    finally:
        torch.set_num_threads(threads)


def language_model(folder) -> list:
    """(name, value) of training, saving, loading and everything that reads a run."""
    dataset = lm.build_dataset(make_words(60), block_size=3)
    train, dev = dataset.splits["train"], dataset.splits["dev"]
    found = [("inputs", train.inputs), ("targets", train.targets)]
    for engine in lm.ENGINES:
        for config in (PLAIN, OPTIONS):
            run = lm.RunFolder(folder / f"{engine}-{config.optimizer}")
            trainer(engine, config, dataset, run=run).train()
            checkpoint = lm.load_checkpoint(run.path)
            found += [(f"{run.path.name} {k}", v) for k, v in checkpoint.parameters.items()]
            found += [(f"{run.path.name} {k}", v) for k, v in checkpoint.moments.items()]
            found += [("generator", checkpoint.generator), ("pending", checkpoint.pending)]
            more = TrainConfig(**{**config.to_json(), "steps": 30})
            resumed = lm.Trainer.resume(checkpoint, dataset, lm.ENGINES[engine](), config=more)
            resumed.train()
            found += [(f"resumed {k}", v) for k, v in resumed.state.model.state_dict().items()]
        model = lm.load_model(run.path)[0]
        found.append(("sample", lm.sample(model, dataset.vocab, 5, seed=3)))
        found.append(("top-k", lm.sample(model, dataset.vocab, 5, seed=3, top_k=2)))
        found.append(("evaluate", lm.evaluate(model, dev)))
        found.append(("in batches", lm.evaluate(model, dev, batch_size=50)))
    report = lm.report_on(model, dataset, OPTIONS, [])
    found += [("report", report.splits), ("n-grams", report.ngrams)]
    found += [("positions", report.positions), ("symbols", report.symbols)]
    curve = lm.lr_finder(model, train, steps=20, batch_size=8, seeds=range(3))
    found += [("lrs", curve.lrs), ("losses", curve.losses), ("smoothed", curve.smoothed)]
    found += [("band", curve.band()), ("suggestions", (curve.valley, curve.steepest))]
    for one in lm.population([PLAIN, OPTIONS, PLAIN], dataset):
        found += [("dev", one.dev), *one.model.state_dict().items(), ("curve", one.losses)]
    overfit = lm.overfit_batch(PLAIN, dataset, lm.ENGINES["run"]())
    found += [("overfit", overfit.losses), ("floor", overfit.floor)]
    counts = lm.ngram(dataset, 3)
    found += [("n-gram", counts.k), ("drawn", lm.sample(counts, dataset.vocab, 5))]
    found.append(("confusion", lm.plots.confusion_shares(model, dev)))
    found.append(("axes", lm.plots.principal_components(model.embedding.weight)[0]))
    return found


def arrays() -> list:
    """The ops and `train_steps`, forward and backward, on every backend that runs here."""
    found = []
    train = lm.build_dataset(make_words(60), block_size=3).splits["train"]
    config = {"dtype": torch.float32, "device": "cpu"}
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, **config).requires_grad_()

    table, weight, bias, out = draw(27, 4), draw(9, 12), draw(9), draw(27, 9)
    rows = torch.randint(len(train), (6, 5), generator=generator, device="cpu")
    found.append(("mask", dropout_mask(0.3, 5, 7, seed=1, step=2, layer=1)))
    for name in ("cpu", "reference"):
        if not mlpkern.backends()[name].available:
            continue
        with mlpkern.use_backend(name):
            ids, target = train.inputs[:30], train.targets[:30]
            h = mlpkern.linear_tanh(mlpkern.embedding_gather(ids, table), weight, bias)
            both = mlpkern.embedding_linear_tanh(ids, table, weight, bias)
            loss = mlpkern.cross_entropy((h + both) @ out.T, target, label_smoothing=0.1)
            shares = torch.softmax(out.detach(), 0)[:, :9]
            loss = loss + mlpkern.cross_entropy(out, shares, reduction="sum")
            gradients = torch.autograd.grad(loss, (table, weight, bias, out), create_graph=True)
            found += [("loss", loss.detach()), *(("gradient", g.detach()) for g in gradients)]
            twice = torch.autograd.grad(gradients[0].square().sum(), weight)
            found.append(("twice", twice[0]))
            copies = [t.detach().clone() for t in (table, weight, bias, out, out[:, 0])]
            params = mlpkern.MLPParams.from_tensors(copies)
            state = mlpkern.OptimizerState.zeros(params, "adamw")
            losses = mlpkern.train_steps(
                params, train.inputs, train.targets, rows, 0.01, 0.0, 0.1, "adamw", state,
                max_grad_norm=1.0, input_dropout=0.1, hidden_dropout=[0.2], seed=3,
            )  # fmt: skip
            found += [("losses", losses), *params.named_tensors().items()]
            found += state.state_dict().items()
            found += mlpkern.evaluate(params, train.inputs, train.targets)._asdict().items()
    return found
