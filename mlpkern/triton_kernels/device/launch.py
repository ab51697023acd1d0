"""How the kernels are launched: on which device, in which configuration, or in the interpreter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy
import torch
import triton
import triton.language as tl

from mlpkern.environment import triton_tune

_capturing = torch.cuda.is_current_stream_capturing
_STAY: AbstractContextManager[None] = nullcontext()


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, as TRITON_INTERPRET=1 asks at its import."""
    return not isinstance(tl.sum, triton.JITFunction)


def device_guard(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """The device of ``tensor`` for a ``with`` block: Triton launches on the current one.

    The interpreter computes in numpy, which warns of what a GPU does in silence, such as inf - inf.
    """
    if interpreted():
        return numpy.errstate(all="ignore")
    if not tensor.is_cuda or tensor.get_device() == torch.cuda.current_device():
        return _STAY
    return torch.cuda.device(tensor.get_device())


def bucket(*sizes: int) -> int:
    """The sizes, each rounded up to a power of two, as one number.

    Launches of one bucket share their configuration, so that another batch size tunes nothing anew.
    """
    number = 0
    for size in sizes:
        number = number << 6 | max(size - 1, 0).bit_length()
    return number


class Tuned:
    """A kernel with a few configurations, of which the fastest is kept: ``kernel[grid](...)``.

    Configurations may differ only in what leaves every bit of the results alone: measured times
    choose among them, and the same call must give the same bits in every process. The kernel must
    write each output once and read none of them, since tuning runs it many times.

    kernel: a ``@triton.jit(do_not_specialize=["bucket"])`` function with an argument ``bucket``.
    configs: at most 6; the first is taken where nothing may be measured: in the interpreter, under
    ``torch.use_deterministic_algorithms``, with MLPKERN_TRITON_TUNE=0 in the environment, and in
    the capture of a CUDA graph that no call of the same key came before. key: names of arguments
    besides ``bucket`` and the dtypes of the tensors for which a choice holds.
    """

    def __init__(self, kernel: Any, configs: Sequence[triton.Config], key: Sequence[str] = ()):
        self.kernel = kernel
        self.configs = tuple(configs)
        self._first = self.configs[0].all_kwargs()
        self._key = ("bucket", *key)
        self._search: Any = None
        self._chosen: dict[tuple[Any, ...], dict[str, Any]] = {}

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        return functools.partial(self.run, grid)

    @property
    def first(self) -> Any:
        """The kernel in its first configuration, for calls whose bits the others would change."""
        return _First(self)

    def run(self, grid: Any, *args: Any, **kwargs: Any) -> None:
        """Launch in the configuration for these arguments; choose it at the first of the key."""
        if len(self.configs) == 1 or interpreted():
            self.kernel[grid](*args, **kwargs, **self._first)
            return
        values = dict(zip(self.kernel.arg_names, args, strict=False), **kwargs)
        dtypes = tuple(v.dtype for v in values.values() if isinstance(v, torch.Tensor))
        key = (*(values[name] for name in self._key), dtypes, torch.cuda.current_device())
        chosen = self._chosen.get(key)
        if chosen is None:
            if not triton_tune() or torch.are_deterministic_algorithms_enabled() or _capturing():
                chosen = self._first
            else:
                if self._search is None:
                    tuner = triton.autotune(list(self.configs), list(self._key), cache_results=True)
                    self._search = tuner(self.kernel)
                self._search[grid](*args, **kwargs)
                self._chosen[key] = self._search.best_config.all_kwargs()
                return
        self.kernel[grid](*args, **kwargs, **chosen)


class _First:
    """See `Tuned.first`."""

    def __init__(self, tuned: Tuned):
        self._tuned = tuned

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        return functools.partial(self._tuned.kernel[grid], **self._tuned.configs[0].all_kwargs())
