"""The errors of the compiled module, and how an op reports them."""

from __future__ import annotations

import pytest
import torch
from support.backends import needs_native
from torch._subclasses.fake_tensor import FakeTensorMode

import mlpkern

ALL = (True, True, True)  # the gradients asked for
X, W, B = torch.randn(6, 5), torch.randn(4, 5), torch.randn(4)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_a_refusal_below_is_told_in_the_words_of_the_op(name):
    if not mlpkern.backends()[name].available:
        pytest.skip(mlpkern.backends()[name].reason)
    ids = torch.zeros(6, 2, dtype=torch.int64)
    with mlpkern.use_backend(name):
        for needs_grad in (False, True):
            w = W.clone().requires_grad_(needs_grad)
            with pytest.raises(ValueError, match=r"weight must be \(H, 4\) to match"):
                mlpkern.linear_tanh(X[:, :4], w, B)
            with pytest.raises(ValueError, match=r"weight must be \(V, D\), got \(5,\)"):
                mlpkern.embedding_gather(ids, w[0])
            with pytest.raises(ValueError, match=r"weight must be \(H, 10\) to match"):
                mlpkern.embedding_linear_tanh(ids, w, w)
            with pytest.raises(ValueError, match=r"target must be \(4,\) class ids"):
                mlpkern.cross_entropy(w, ids[:, 0])


FAKE = FakeTensorMode()


@needs_native
@pytest.mark.parametrize("kind", ["list", "meta", "fake", "sparse"])
def test_a_native_call_refuses_what_has_no_memory(kind):
    from mlpkern import _C

    make = {
        "list": lambda t: t.tolist(),
        "meta": lambda t: t.to("meta"),
        "fake": lambda t: FAKE.from_tensor(t.clone()),
        "sparse": lambda t: t.to_sparse(),
    }[kind]
    ids, target = torch.zeros(6, 2, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)
    for function, arguments in (
        (_C.linear_tanh_forward, (X, W, B)),
        (_C.embedding_gather_forward, (ids, W)),
        (_C.embedding_linear_tanh_forward, (ids, W[:, :2], W[:, :4], B)),
        (_C.cross_entropy_forward, (X, target, None, -100, 1, 0.0)),
        (_C.linear_tanh_backward, (X[:, :4], X, W, X[:, :4], True, True, True)),
        (
            _C.embedding_linear_tanh_backward,
            (X[:, :4], ids, W[:, :2], W[:, :4], X[:, :4], True, True, True),
        ),
    ):
        for i, argument in enumerate(arguments):
            if isinstance(argument, torch.Tensor):
                bad = [*arguments[:i], make(argument), *arguments[i + 1 :]]
                with pytest.raises(TypeError, match=r"must be a (real, dense CPU|torch\.T)"):
                    function(*bad)


@needs_native
def test_a_native_call_refuses_shapes_that_do_not_match():
    """The checks of memory safety in mlpkern._C, below the argument checks of the ops."""
    from mlpkern import _C

    ids, target = torch.zeros(6, 2, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)
    loss = torch.ones(())
    lse, total = torch.zeros(2, 6), torch.ones(())
    for function, arguments in (
        (_C.linear_tanh_forward, (X, W[:, :4], B)),
        (_C.linear_tanh_forward, (X, W, B[:3])),
        (_C.linear_tanh_backward, (X[:5, :4], X, W, X[:, :4], True, True, True)),
        (_C.linear_tanh_backward, (X[:, :4], X, W, X[:, :3], True, True, True)),
        (_C.embedding_gather_forward, (ids, W[0])),
        (_C.embedding_gather_backward, (X, ids[:5], 4, -1)),
        (_C.embedding_gather_backward, (X, ids, 4, -1)),  # 5 columns are not 2 rows of D
        (_C.embedding_linear_tanh_forward, (ids, W[:, :2], W, B)),
        (_C.embedding_linear_tanh_forward, (ids, W[0], W[:, :4], B)),
        (_C.embedding_linear_tanh_forward, (ids, W[:, :2], W[:, :4], B[:3])),
        (_C.embedding_linear_tanh_backward, (X[:5, :4], ids, W[:, :2], W[:, :4], X[:, :4], *ALL)),
        (_C.embedding_linear_tanh_backward, (X[:, :4], ids, W[:, :2], W[:, :4], X[:, :3], *ALL)),
        (_C.cross_entropy_forward, (X, target[:5], None, -100, 1, 0.0)),
        (_C.cross_entropy_forward, (X, target, B, -100, 1, 0.0)),
        (_C.cross_entropy_backward, (loss, X, target, None, lse[:, :5], total, -100, 1, 0.0)),
        (_C.cross_entropy_backward, (X[:5, 0], X, target, None, lse, total, -100, 0, 0.0)),
    ):
        with pytest.raises(ValueError, match=r"must be|must have"):
            function(*arguments)
