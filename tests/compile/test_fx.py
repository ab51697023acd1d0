"""torch.fx records the ops as it records torch's functions, wherever in a model they are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlpkern

V, D, T, H = 7, 4, 3, 5
TABLE, W, B = torch.randn(V, D), torch.randn(H, T * D), torch.randn(H)
IDS, X, TARGET = torch.randint(V, (6, T)), torch.randn(6, T * D), torch.randint(V, (6,))

CALLS = {
    "embedding_gather": (lambda ids: mlpkern.embedding_gather(ids, TABLE, padding_idx=1), IDS),
    "linear_tanh": (lambda x: mlpkern.linear_tanh(x, W), X),
    "embedding_linear_tanh": (lambda ids: mlpkern.embedding_linear_tanh(ids, TABLE, W, B), IDS),
    "cross_entropy": (
        lambda x: mlpkern.cross_entropy(x, TARGET, reduction="sum", label_smoothing=0.1),
        X,
    ),
}


@pytest.mark.parametrize("op", CALLS)
def test_an_op_is_one_node(op):
    function, input = CALLS[op]
    traced = torch.fx.symbolic_trace(function)
    called = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert called == [getattr(mlpkern, op)]
    assert torch.equal(traced(input), function(input))


def test_an_object_that_stands_for_a_tensor_decides_itself():
    class Named:
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function.__name__, args, kwargs

    stand_in = Named()
    assert mlpkern.linear_tanh(X, stand_in) == ("linear_tanh", (X, stand_in, None), {})
    with pytest.raises(TypeError, match=r"^linear_tanh: weight must be a torch.Tensor, got list"):
        mlpkern.linear_tanh(X, [])


def test_from_module_sees_an_op_in_a_function_of_another_module():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = mlpkern.nn.EmbeddingGather(V, D)
            self.hidden, self.last = nn.Linear(T * D, H), nn.Linear(H, V)

        def forward(self, ids):
            x = self.embedding(ids)
            return self.last(in_another_namespace(x, self.hidden.weight, self.hidden.bias))

    net = Net()
    params = mlpkern.MLPParams.from_module(net)
    assert params.hidden[0] == (net.hidden.weight, net.hidden.bias)


exec("def in_another_namespace(x, w, b): return op(x, w, b)", other := {"op": mlpkern.linear_tanh})
in_another_namespace = other["in_another_namespace"]
