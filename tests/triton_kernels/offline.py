"""Compiles what a call launches, for cards that are not there: nothing runs, nothing is cached.

The launches are those of the package itself, in every configuration that tuning may choose, on
tensors in host memory of which only dtype, shape, strides and alignment count. So no list of
signatures can be out of date: whatever a call would launch on a card is compiled for that card.

Import this before triton: it sets the folder of Triton's cache to an empty one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if "triton" in sys.modules:
    raise ImportError("offline: import it before triton, whose settings it changes")
os.environ.pop("TRITON_INTERPRET", None)
_folder = tempfile.TemporaryDirectory(prefix="mlpkern-triton-")
os.environ["TRITON_CACHE_DIR"] = _folder.name

import cubin  # noqa: E402
import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

TARGETS = (80, 90, 100)


@dataclass(frozen=True)
class Compiled:
    """A kernel as one launch needs it, for one target."""

    kernel: str
    target: str  # "sm_90"
    launch: str  # dtypes of the pointers, constants, warps and stages
    ttgir: str  # the last form in which products are products
    code: cubin.Code
    hash: str


class _Cards:
    """In the place of Triton's driver: the card is whichever the compiler shall write for."""

    def __init__(self) -> None:
        self.target = TARGETS[0]

    def get_current_device(self) -> int:
        return self.target

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.target, 32)


def compiled_by(call: Callable[[], Any], targets: tuple[int, ...] = TARGETS) -> list[Compiled]:
    """What `call` would launch; its results mean nothing."""
    found: dict[str, Compiled] = {}
    cards = _Cards()
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        for cards.target in targets:
            binary = run(self, *args, grid=grid, warmup=True, **kwargs)
            if binary.hash not in found:
                found[binary.hash] = _read(self, binary, args, kwargs, cards.target)

    triton.runtime.driver.set_active(cards)
    with _every_configuration(), _replaced(JITFunction, "run", compile_only):
        call()
    return list(found.values())


@contextmanager
def _every_configuration() -> Iterator[None]:
    from mlpkern.triton_kernels.device.launch import Tuned

    def run(self: Any, grid: Any, *args: Any, **kwargs: Any) -> None:
        for config in self.configs:
            self.kernel[grid](*args, **kwargs, **config.all_kwargs())

    with _replaced(Tuned, "run", run):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _read(
    kernel: JITFunction, binary: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: int
) -> Compiled:
    path = Path(_folder.name) / "kernel.cubin"
    path.write_bytes(binary.asm["cubin"])
    (codes,) = cubin.read(path).values()
    (code,) = codes.values()
    launch = _launch(kernel, args, kwargs)
    return Compiled(
        kernel.fn.__name__, f"sm_{target}", launch, binary.asm["ttgir"], code, binary.hash
    )


def _launch(kernel: JITFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """ "float32, int64, BLOCK_N=64, num_warps=4": what tells apart the launches of a kernel."""
    values = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
    constants = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    dtypes = [str(v.dtype).removeprefix("torch.") for v in values.values() if hasattr(v, "dtype")]
    options = {"num_warps", "num_stages"}
    named = [f"{name}={v}" for name, v in values.items() if name in constants | options]
    return ", ".join([*dict.fromkeys(dtypes), *named])
