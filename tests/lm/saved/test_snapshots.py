"""What is returned of a state is one moment of it: steps taken later change none of its parts."""

from __future__ import annotations

import torch
from support.lm.training import trainer
from support.lm.words import make_words

import mlpkern
from mlpkern import lm
from mlpkern.lm.many.population import Population
from mlpkern.lm.saved.checkpoint import Checkpoint


def copied(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_state_dict_of_the_optimizer():
    sizes = ((5, 2), (4, 4), (4,), (5, 4), (5,))
    params = mlpkern.MLPParams.from_tensors([torch.randn(size) for size in sizes])
    ids, rows = torch.randint(5, (20, 2)), torch.randint(20, (6, 3))
    state = mlpkern.OptimizerState.zeros(params, "adamw")

    def go_on():
        mlpkern.train_steps(params, ids, ids[:, 0], rows, 0.01, optimizer="adamw", state=state)

    go_on()
    taken = state.state_dict()
    moment, before = copied(taken), params.clone()
    go_on()
    after = copied(state.state_dict())
    assert same(taken, moment)
    assert taken["step"] == 6
    assert not torch.equal(after["first.embedding"], moment["first.embedding"])
    state.load_state_dict(taken)
    for ours, theirs in zip(params.tensors(), before.tensors(), strict=True):
        ours.copy_(theirs)
    go_on()
    assert same(state.state_dict(), after)


def test_a_checkpoint_of_a_state():
    run = trainer("run")
    state = run.state

    def go_on():
        run.engine.run_chunk(state, 5)

    go_on()
    rest = {"vocab": run.dataset.vocab, "pending": torch.empty(0)}
    taken = Checkpoint.of(state, **rest)
    moment = copied(taken.parameters), taken.generator.clone(), copied(taken.moments)
    go_on()
    assert same(taken.parameters, moment[0])
    assert torch.equal(taken.generator, moment[1])
    assert same(taken.moments, moment[2])
    assert taken.step == 5
    assert not same(Checkpoint.of(state, **rest).parameters, moment[0])


def test_what_a_population_gave_halfway():
    dataset = lm.build_dataset(make_words(60), block_size=2)
    config = lm.TrainConfig(block_size=2, hidden=(8,), steps=40, optimizer="adamw", lr=((0, 0.01),))
    everything = Population([config], dataset)
    everything.advance(0.5)
    halfway = everything.results()[0]
    taken = copied(halfway.model.state_dict())
    generator, moments = halfway.state.generator.get_state(), halfway.state.optimizer.state_dict()
    everything.advance(1.0)
    end = everything.results()[0]
    assert halfway.state.step == 20
    assert same(halfway.model.state_dict(), taken)
    assert torch.equal(halfway.state.generator.get_state(), generator)
    assert same(halfway.state.optimizer.state_dict(), moments)
    # and it goes on from there to the same end
    lm.RunEngine().run_chunk(halfway.state, 20)
    assert same(halfway.model.state_dict(), end.model.state_dict())
