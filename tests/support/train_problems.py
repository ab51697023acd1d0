"""Problems for the tests of ``train_steps``, and a training loop in stock torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mlpkern
from mlpkern import MLPParams
from mlpkern.reference.philox import dropout_mask

# The error of a run is a sum of roundings, which the following steps amplify. By chance one of two
# loops has the larger roundings.
FACTOR = 3.0

FLOATS = [torch.float32, torch.float64]

SGD = {"momentum": 0.9, "weight_decay": 0.01}
ADAMW = {"optimizer": "adamw", "lr": 0.01}
OPTIONS = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "weight decay": {"weight_decay": 0.03},
    "momentum and decay": SGD,
    "adamw": ADAMW,
    "adamw, other betas": {**ADAMW, "betas": (0.8, 0.95), "eps": 1e-5},
    "adamw with decay": {**ADAMW, "weight_decay": 0.1},
    "clipping": {"max_grad_norm": 0.5},
    "clipping that never clips": {"max_grad_norm": 1e6},
    "smoothing": {"label_smoothing": 0.1},
    "input dropout": {"input_dropout": 0.2, "seed": 5},
    "hidden dropout": {"hidden_dropout": 0.5, "seed": 2**63 + 5},
    "all of sgd": {
        **SGD, "nesterov": True, "max_grad_norm": 0.7, "label_smoothing": 0.2,
        "input_dropout": 0.1, "hidden_dropout": 0.3, "seed": -1,
    },
    "all of adamw": {
        **ADAMW, "weight_decay": 0.05, "max_grad_norm": 0.7, "label_smoothing": 0.2,
        "input_dropout": 0.1, "hidden_dropout": 0.3,
    },
}  # fmt: skip

# One of everything; one past a vector of 4, 8 or 16; primes; D of the lecture; more classes than
# ids and fewer; a first layer of one unit; batches larger than the training set; and batches so
# much larger than the embedding table that a CPU folds the first layer.
SHAPES = {
    "all ones": {"V": 2, "T": 1, "D": 1, "hidden": (1,), "N": 1, "C": 2},
    "one class": {"C": 1},
    "one id": {"V": 1, "C": 3},
    "N=1": {"N": 1},
    "T=1": {"T": 1},
    "D=1": {"D": 1},
    "H=1": {"hidden": (1,)},
    "H=1 in the middle": {"hidden": (9, 1, 5)},
    "V=2": {"V": 2},
    "D=10, N=33": {"V": 27, "D": 10, "hidden": (20,), "N": 33},
    "H=513": {"hidden": (513,), "S": 12},
    "more classes": {"V": 5, "C": 67},
    "fewer classes": {"V": 300, "C": 17},
    "N above 64": {"N": 131, "S": 12},
    "prime": {"V": 13, "T": 7, "D": 5, "hidden": (31, 29), "N": 17},
    "folded": {"V": 13, "D": 10, "hidden": (20,), "N": 67, "S": 12},
    "lecture": {"V": 27, "D": 10, "hidden": (200,), "N": 32, "rows": 500},
}

# More rows than one block, and weights larger than L2, which are multiplied in another order.
LARGE = {
    "N above 512": {"N": 700, "S": 4, "rows": 900},
    "folded": {"V": 27, "D": 10, "hidden": (200,), "N": 1100, "S": 3, "rows": 300},
    "deep": {"V": 50, "D": 30, "hidden": (300, 600), "C": 200, "N": 130, "S": 3, "rows": 300},
    "far weights": {"D": 9, "hidden": (2047, 2053), "C": 2100, "N": 37, "S": 2, "rows": 300},
    "large batch": {"V": 50, "D": 30, "hidden": (700,), "C": 210, "N": 1100, "S": 2, "rows": 300},
}

Run = tuple[Tensor, MLPParams]  # losses and trained parameters


@dataclass
class Problem:
    """The arguments of a run: ``train_steps(params, inputs, targets, batches, lr)``."""

    params: MLPParams
    inputs: Tensor
    targets: Tensor
    batches: Tensor
    lr: Any = 0.1

    def to(self, dtype: torch.dtype) -> Problem:
        """A copy with the parameters in another dtype."""
        return replace(self, params=self.params.map(lambda t: t.to(dtype, copy=True)))

    def run(self, **options: Any) -> Run:
        """The losses and the trained parameters of ``train_steps`` on a copy."""
        params = self.params.clone()
        data = (self.inputs, self.targets, self.batches, self.lr)
        return mlpkern.train_steps(params, *data, **options), params

    def stock(self, **options: Any) -> Run:
        """The same from the loop in stock torch, one model after another."""
        models, steps = self.params.models, self.batches.shape[-2]
        lr = torch.as_tensor(self.lr, dtype=torch.float64).expand(models or 1, steps)
        seed, own_seed = options.pop("seed", 0), False
        if not isinstance(seed, int):
            own_seed = True
        results = []
        for m in range(models or 1):
            single = self.params if models is None else self.params.model(m)
            batches = self.batches[m] if self.batches.dim() == 3 else self.batches
            own = {name: value[m] if _each(value) else value for name, value in options.items()}
            own |= {"seed": int(seed[m]) if own_seed else seed, "stream": 0 if own_seed else m}
            data = (self.inputs, self.targets, batches, lr[m].tolist())
            results.append(stock_loop(single, *data, **own))
        if models is None:
            return results[0]
        losses, params = zip(*results, strict=True)
        return torch.stack(losses), MLPParams.stack(params)


def _each(value: Any) -> bool:
    return isinstance(value, list)  # one value for each model; betas are a tuple


def problem(
    V=11, T=3, D=4, hidden=(16,), N=8, S=30, C=None, M=None, rows=60, device="cpu", seed=1,
    dtype=torch.float32,
) -> Problem:  # fmt: skip
    """A problem with random data; C classes, V of them unless given."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int, std: float = 1.0) -> Tensor:
        drawn = torch.randn(*([] if M is None else [M]), *sizes, generator=generator)
        return (std * drawn).to(device, dtype)

    def ids(limit: int, *sizes: int) -> Tensor:
        return torch.randint(0, limit, sizes, generator=generator).to(device)

    widths = [T * D, *hidden, C or V]
    layers = [(normal(h, k, std=k**-0.5), normal(h, std=0.1)) for k, h in pairwise(widths)]
    params = MLPParams(normal(V, D), layers[:-1], layers[-1])
    return Problem(params, ids(V, rows, T), ids(C or V, rows), ids(rows, S, N))


def module(params: MLPParams) -> nn.Sequential:
    """Layers of torch.nn with copies of one model's parameters; the same ones are frozen."""
    layers: list[nn.Module] = [nn.Embedding(*params.embedding.shape), nn.Flatten()]
    for weight, _ in params.hidden:
        layers += [nn.Linear(weight.shape[1], weight.shape[0]), nn.Tanh()]
    layers.append(nn.Linear(params.output[0].shape[1], params.output[0].shape[0]))
    model = nn.Sequential(*layers).to(params.device, params.dtype)
    with torch.no_grad():
        for own, given in zip(model.parameters(), params.tensors(), strict=True):
            own.copy_(given)
    for own, frozen in zip(model.parameters(), params.is_frozen(), strict=True):
        own.requires_grad_(not frozen)
    return model


def stock_loop(
    params, inputs, targets, batches, rates, *, optimizer="sgd", momentum=0.0, nesterov=False,
    weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8, max_grad_norm=None, label_smoothing=0.0,
    input_dropout=0.0, hidden_dropout=0.0, seed=0, stream=0,
) -> Run:  # fmt: skip
    """The losses and the parameters of one model that is trained as in the makemore lecture."""
    model = module(params)
    if optimizer == "sgd":
        stepper: Any = torch.optim.SGD(
            model.parameters(), momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )
    else:
        named = list(model.named_parameters())
        groups = [
            {"params": [p for name, p in named if name.endswith("weight")]},
            {"params": [p for name, p in named if name.endswith("bias")], "weight_decay": 0.0},
        ]
        stepper = torch.optim.AdamW(groups, betas=betas, eps=eps, weight_decay=weight_decay)
    losses = []
    for s, (rows, rate) in enumerate(zip(batches.long(), rates, strict=True)):
        x, layer = inputs[rows].long(), 0
        for part in model:
            x = part(x)
            p = input_dropout if isinstance(part, nn.Flatten) else hidden_dropout
            if p and isinstance(part, (nn.Flatten, nn.Tanh)):
                x = x * dropout_mask(
                    p, *x.shape, seed=seed, step=s, layer=layer, stream=stream,
                    dtype=x.dtype, device=x.device,
                )  # fmt: skip
            layer += isinstance(part, (nn.Flatten, nn.Tanh))
        loss = F.cross_entropy(x, targets[rows].long(), label_smoothing=label_smoothing)
        losses.append(loss.detach())
        stepper.zero_grad()
        loss.backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        for group in stepper.param_groups:
            group["lr"] = rate
        stepper.step()
    trained = MLPParams.from_tensors([p.detach() for p in model.parameters()])
    return torch.stack(losses), trained


def distance(one: Run, exact: Run) -> tuple[float, float]:
    """The largest difference of two runs in losses and in parameters."""
    pairs = zip(one[1].tensors(), exact[1].tensors(), strict=True)
    return _difference(one[0], exact[0]), max(_difference(a, b) for a, b in pairs)


def _difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()


def check(case: Problem, **options: Any) -> None:
    """``train_steps`` is as close to stock torch in float64 as stock torch in float32 is.

    The limit is FACTOR times stock's distance plus one rounding of the largest value, for losses
    and for parameters. float64 runs are compared with stock directly: after a few dozen steps of
    these problems two of them differ by some hundred roundings.
    """
    case.lr = options.pop("lr", case.lr)
    ours, stock = case.run(**options), case.stock(**options)
    assert ours[0].dtype == case.params.dtype
    if case.params.dtype == torch.float64:
        tensors = ([losses, *params.tensors()] for losses, params in (ours, stock))
        for one, other in zip(*tensors, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    else:
        assert_as_close(ours, stock, case.to(torch.float64).stock(**options))


def assert_as_close(ours: Run, stock: Run, exact: Run) -> None:
    """The comparison of `check` for float32 runs."""
    eps = torch.finfo(torch.float32).eps
    sizes = (exact[0].abs().max(), max(tensor.abs().max() for tensor in exact[1].tensors()))
    both = zip(distance(ours, exact), distance(stock, exact), strict=True)
    for what, size, (mine, theirs) in zip(("losses", "parameters"), sizes, both, strict=True):
        limit = FACTOR * theirs + eps * size.item()
        assert mine <= limit, f"{what}: {mine:.3g} from float64, stock {theirs:.3g}"
