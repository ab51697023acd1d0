"""``MLPParams``: shared memory, copies and errors."""

from __future__ import annotations

import pytest
import torch
from support.train_problems import problem
from torch import nn

import mlpkern
from mlpkern import MLPParams
from mlpkern.lm import MLPLanguageModel


def normal(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes)


def layers(*, V=11, D=4, T=3, H=16, C=11) -> list[nn.Module]:
    return [nn.Embedding(V, D), nn.Flatten(), nn.Linear(T * D, H), nn.Tanh(), nn.Linear(H, C)]


def same(params: MLPParams, tensors: list[torch.Tensor]) -> bool:
    return [t.data_ptr() for t in params.tensors()] == [t.data_ptr() for t in tensors]


def test_sizes_and_names():
    params = problem(V=27, T=3, D=10, hidden=(200, 50), C=30).params
    assert params.models is None
    assert params.sizes == (27, 10, 30, 200, 50, 30)
    assert params.context == 3
    assert params.names() == [
        "embedding", "hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "hidden.1.bias",
        "output.weight", "output.bias",
    ]  # fmt: skip
    assert list(params.named_tensors()) == params.names()
    assert params.named_tensors()["hidden.1.bias"] is params.hidden[1][1]
    several = problem(V=27, T=3, D=10, hidden=(200, 50), C=30, M=4).params
    assert several.models == 4
    assert several.sizes == params.sizes
    assert (several.dtype, several.device) == (torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("flatten", [[nn.Flatten()], [nn.Flatten(-2)]])
def test_from_module_shares_the_parameters(flatten):
    embedding, _, linear, tanh, output = layers()
    model = nn.Sequential(embedding, *flatten, nn.Sequential(linear, tanh), output)
    assert same(MLPParams.from_module(model), list(model.parameters()))


def test_from_module_with_fused_layers():
    model = nn.Sequential(*layers()[:-1], nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 11))
    tensors = list(model.parameters())
    mlpkern.fuse(model)
    params = MLPParams.from_module(model)
    assert same(params, tensors)
    assert params.sizes == (11, 4, 12, 16, 9, 11)


@pytest.mark.parametrize("hidden", [7, (7, 5)])
def test_from_module_of_the_language_model(hidden):
    model = MLPLanguageModel(11, 3, 4, hidden)
    params = MLPParams.from_module(model)
    assert same(params, list(model.parameters()))
    ids, targets = torch.randint(0, 11, (50, 3)), torch.randint(0, 11, (50,))
    with torch.no_grad():
        loss = model.loss(ids, targets)
    torch.testing.assert_close(mlpkern.evaluate(params, ids, targets).loss, loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: [], "layer 0 is Sequential"),
        (lambda m: m[1:], "layer 0 is Flatten"),
        (lambda m: [*m[:3], nn.ReLU(), m[4]], "layer 3 is ReLU"),
        (lambda m: [*m[:4], nn.Dropout(), m[4]], "layer 4 is Dropout"),
        (lambda m: [*m, nn.LogSoftmax(1)], "layer 4 is Linear|layer 5 is LogSoftmax"),
        (lambda m: m[:4], "the last Linear is missing"),
        (lambda m: [*m[:2], m[4]], "layer 2 is Linear|the last Linear is missing"),
        (lambda m: m[:1], "the last Linear is missing"),
    ],
)
def test_from_module_refuses_other_layers(change, message):
    model = nn.Sequential(*change(layers()))
    with pytest.raises(ValueError, match=f"^from_module: model must have the layers .*({message})"):
        MLPParams.from_module(model)


def test_from_module_refuses_options_that_change_the_training():
    for change, message in (
        ({0: nn.Embedding(11, 4, padding_idx=0)}, "Embedding must be without padding_idx=0"),
        ({0: nn.Embedding(11, 4, max_norm=1.0)}, "Embedding must be without max_norm=1.0"),
        ({2: nn.Linear(12, 16, bias=False)}, r"every Linear must have a bias, .* \(16, 12\)"),
        ({4: nn.Linear(16, 11, bias=False)}, r"every Linear must have a bias, .* \(11, 16\)"),
    ):
        parts = [change.get(i, layer) for i, layer in enumerate(layers())]
        with pytest.raises(ValueError, match=f"^from_module: {message}"):
            MLPParams.from_module(nn.Sequential(*parts))
    with pytest.raises(TypeError, match=r"^from_module: model must be a nn.Module, got list"):
        MLPParams.from_module(layers())


def test_stack_copies_and_model_gives_views():
    singles = [problem(seed=m).params for m in range(3)]
    stacked = MLPParams.stack(singles)
    assert stacked.models == 3
    for m, single in enumerate(singles):
        for name, tensor in single.named_tensors().items():
            view = stacked.model(m).named_tensors()[name]
            assert torch.equal(view, tensor)
            assert view.data_ptr() != tensor.data_ptr()
    stacked.model(1).output[1].fill_(5.0)
    assert (stacked.output[1][1] == 5.0).all()
    assert torch.equal(stacked.output[1][2], singles[2].output[1])
    assert torch.equal(stacked.model(-1).embedding, singles[2].embedding)


def test_clone_is_a_copy():
    params = problem().params
    params.embedding.requires_grad_()
    copy = params.clone()
    assert not copy.embedding.requires_grad
    copy.embedding.fill_(0.0)
    assert params.embedding.abs().min() > 0


def test_stack_and_model_refuse():
    single, several = problem().params, problem(M=2).params
    with pytest.raises(ValueError, match="must hold at least one model, got none"):
        MLPParams.stack([])
    with pytest.raises(ValueError, match=r"models\[1\] must be one model, got several"):
        MLPParams.stack([single, several])
    for other in (problem(hidden=(17,)), problem(hidden=(16, 16))):
        with pytest.raises(ValueError, match=r"must have the shapes of models\[0\], but .* of mod"):
            MLPParams.stack([single, other.params])
    with pytest.raises(ValueError, match="the parameters of one model already"):
        single.model(0)
    with pytest.raises(IndexError, match="m is 2, expected 0 <= m < 2"):
        several.model(2)


HIDDEN = [((16, 12), (16,))]
OUTPUT = ((11, 16), (11,))


@pytest.mark.parametrize(
    ("embedding", "hidden", "output", "message"),
    [
        ((11, 4), [], OUTPUT, "hidden must have at least one"),
        ((4,), HIDDEN, OUTPUT, r"embedding must be \(V, D\), or \(M, V, D\) .* got \(4,\)$"),
        ((11, 4), [((16, 13), (16,))], OUTPUT, r"must be \(H, T\*4\) .* got \(16, 13\)$"),
        ((11, 4), [((12,), (12,))], OUTPUT, r"hidden.0.weight must be \(H, 12\) .* got \(12,\)$"),
        ((11, 4), [((16, 12), (15,))], OUTPUT, r"hidden.0.bias must be \(16,\) .* got \(15,\)$"),
        ((11, 4), HIDDEN, ((11, 15), (11,)), r"output.weight must be \(C, 16\) .*15\)$"),
        ((11, 4), HIDDEN, ((11, 16), (1, 11)), r"output.bias must be \(11,\) .* got \(1, 11\)$"),
        (
            (11, 4),
            [*HIDDEN, ((9, 15), (9,))],
            OUTPUT,
            r"hidden.1.weight must be \(H, 16\) .*15\)$",
        ),
        ((2, 11, 4), [((3, 16, 12), (3, 16))], OUTPUT, r"must be \(2, H, 12\) .* \(3, 16, 12\)$"),
        ((2, 11, 4), HIDDEN, OUTPUT, r"hidden.0.weight must be \(2, H, 12\) .* got \(16, 12\)$"),
        ((11, 4), [((0, 12), (0,))], ((11, 0), (11,)), "every size must be at least 1, got hidden"),
        ((0, 4), HIDDEN, OUTPUT, "every size must be at least 1, got embedding"),
        (
            (0, 11, 4),
            [((0, 16, 12), (0, 16))],
            ((0, 11, 16), (0, 11)),
            "every size must be at least 1",
        ),
    ],
)
def test_shapes_that_do_not_fit(embedding, hidden, output, message):
    pairs = [tuple(normal(*sizes) for sizes in pair) for pair in hidden]
    with pytest.raises(ValueError, match=f"^MLPParams: .*{message}"):
        MLPParams(normal(*embedding), pairs, tuple(normal(*sizes) for sizes in output))


def test_wrong_kinds():
    good = problem().params
    table, hidden = good.embedding, good.hidden
    weight, bias = good.output
    for arguments, error, message in (
        ((table.tolist(), hidden, good.output), TypeError, "embedding must be a torch.Tensor"),
        ((table.half(), hidden, good.output), TypeError, "embedding must be .*, got float16"),
        ((table, hidden, (weight.double(), bias)), TypeError, "output.weight must be float32"),
        ((table, hidden, (weight, bias.to("meta"))), ValueError, "output.bias must be on cpu"),
        ((table, [weight], good.output), TypeError, r"hidden.0 must be a pair .* got Tensor"),
        ((table, hidden, weight), TypeError, "output must be a pair .* got Tensor"),
    ):
        with pytest.raises(error, match=f"^MLPParams: {message}"):
            MLPParams(*arguments)
