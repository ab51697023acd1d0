"""The steps of the engine ``ops`` on a GPU, run on a CPU: the same steps without the graph."""

from __future__ import annotations

import pytest
import torch
from support.lm.training import OPTIONS, changed, trainer

from mlpkern.lm.training.ops import OpsEngine, graphed_steps

SETTINGS = {"plain SGD": {}, "momentum": OPTIONS["momentum"], "everything": OPTIONS["everything"]}


def train(state, *cuts):
    return torch.cat([graphed_steps(state, state.learning_rates(steps)) for steps in cuts])


@pytest.mark.parametrize("settings", SETTINGS)
def test_they_are_those_of_the_engine_on_a_cpu_in_every_option(settings):
    config = changed(**SETTINGS[settings], seed=2**40)
    ours, theirs = trainer("ops", config).state, trainer("ops", config).state
    losses = train(ours, 5, 12)
    torch.testing.assert_close(losses, OpsEngine().run_chunk(theirs, 17), rtol=1e-5, atol=1e-5)
    assert ours.step == theirs.step == 17
    assert torch.equal(ours.generator.get_state(), theirs.generator.get_state())
    pairs = zip(
        [*ours.model.parameters(), *ours.optimizer.tensors()],
        [*theirs.model.parameters(), *theirs.optimizer.tensors()],
        strict=True,
    )
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_a_parameter_that_lies_elsewhere_or_is_another_is_trained_there():
    state, plain = trainer("ops").state, trainer("ops").state
    expected = train(plain, 3, 3, 3)
    first = train(state, 3)
    weight = state.model.output.weight
    weight.data = weight.data.clone()  # elsewhere
    second = train(state, 3)
    state.model.hidden[0].weight = torch.nn.Parameter(state.model.hidden[0].weight.detach().clone())
    losses = torch.cat([first, second, train(state, 3)])
    assert torch.equal(losses, expected)
    for mine, other in zip(state.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, other)
