"""The frozen tensors of `mlpkern.MLPParams`."""

from __future__ import annotations

import pytest
import torch
from support.train_problems import module, problem
from torch import nn

from mlpkern import MLPParams, OptimizerState


def test_plain_tensors_train_whatever_their_requires_grad():
    params = problem().params
    assert params.frozen == ()
    params.embedding.requires_grad_()
    assert params.frozen == ()
    assert params.is_frozen() == [False] * 5


def test_parameters_are_frozen_while_they_want_no_gradient():
    model = module(problem().params)
    params = MLPParams.from_module(model)
    assert params.frozen == ()
    model[2].bias.requires_grad_(False)
    model[4].weight.requires_grad_(False)
    assert params.frozen == ("hidden.0.bias", "output.weight")
    assert params.is_frozen() == [False, False, True, True, False]
    model.requires_grad_(True)
    assert params.frozen == ()
    with torch.no_grad():
        assert MLPParams.from_module(model).frozen == ()
    model.requires_grad_(False)
    assert list(params.frozen) == params.names()


def test_a_view_of_a_parameter_is_frozen_with_it():
    embedding, *layers = problem().params.tensors()
    table = nn.Parameter(embedding.t().clone())
    with torch.no_grad():
        params = MLPParams.from_tensors([table.t(), *layers])
    assert params.frozen == ()
    table.requires_grad_(False)
    assert params.frozen == ("embedding",)
    assert MLPParams.from_tensors([table.detach().t(), *layers]).frozen == ()


def test_names_decide_where_they_are_given():
    model = module(problem().params).requires_grad_(False)
    params = MLPParams.from_module(model)
    for names in (["output.bias"], {"embedding", "output.bias"}, (), iter(["embedding"])):
        chosen = tuple(names)
        params.frozen = chosen
        assert set(params.frozen) == set(chosen)
    assert MLPParams.from_tensors(params.tensors(), frozen=["output.bias"]).frozen == (
        "output.bias",
    )
    params.frozen = None
    assert list(params.frozen) == params.names()


def test_copies_keep_what_is_frozen():
    model = module(problem().params)
    model[0].requires_grad_(False)
    params = MLPParams.from_module(model)
    several = MLPParams.stack([params, params.clone()])
    doubled = params.map(lambda tensor: tensor.double())
    for copy in (params.clone(), doubled, several, several.model(1), several.clone()):
        assert copy.frozen == ("embedding",)
    model[0].requires_grad_(True)
    assert several.frozen == ("embedding",)
    state = OptimizerState.zeros(several, "adamw")
    shapes = [tensor.shape for tensor in several.tensors()]
    assert [tensor.shape for tensor in state.first.tensors()] == shapes


def test_what_is_refused():
    tensors = problem().params.tensors()
    with pytest.raises(ValueError, match=r"^MLPParams: frozen must be among embedding, .*, got C$"):
        MLPParams.from_tensors(tensors, frozen=["C"])
    for wrong in ("embedding", 3, True):
        with pytest.raises(TypeError, match=r"^MLPParams: frozen must be a collection of names"):
            MLPParams.from_tensors(tensors, frozen=wrong)
    one, other = (MLPParams.from_tensors(tensors, frozen=names) for names in ((), ["embedding"]))
    message = r"^MLPParams.stack: .* models\[0\] does, nothing, but models\[1\] freezes embedding$"
    with pytest.raises(ValueError, match=message):
        MLPParams.stack([one, other])
