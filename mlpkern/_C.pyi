"""Types of the compiled module; `mlpkern.reference` says what the low-level functions compute."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mlpkern.mlp.training_arguments import TrainingArguments

def embedding_gather_forward(input: Tensor, weight: Tensor) -> Tensor: ...
def embedding_gather_backward(
    grad_output: Tensor, input: Tensor, num_embeddings: int, padding_idx: int
) -> Tensor: ...
def linear_tanh_forward(
    input: Tensor, weight: Tensor, bias: Tensor | None, tf32: bool = False
) -> Tensor: ...
def linear_tanh_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    output: Tensor,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
    tf32: bool = False,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...
def linear_tanh_epilogue(output: Tensor, bias: Tensor | None) -> None: ...
def linear_tanh_slope(
    grad_output: Tensor, output: Tensor, need_bias: bool
) -> tuple[Tensor, Tensor | None]: ...
def embedding_linear_tanh_forward(
    input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor: ...
def embedding_linear_tanh_backward(
    grad_output: Tensor,
    input: Tensor,
    embedding: Tensor,
    weight: Tensor,
    output: Tensor,
    need_embedding: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...
def cross_entropy_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> tuple[Tensor, Tensor, Tensor]: ...
def cross_entropy_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    total_weight: Tensor,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> Tensor: ...
def train_steps(
    arguments: TrainingArguments,
    tf32: bool = False,
    state: Any = None,
    landing: list[Callable[[], Any]] = ...,
    flag: bytearray | None = None,
) -> Tensor: ...
def evaluate(
    parameters: list[Tensor],
    inputs: Tensor,
    targets: Tensor,
    tf32: bool = False,
    flag: bytearray | None = None,
) -> tuple[Tensor, Tensor]: ...
def train_steps_path(
    device_index: int,
    V: int,
    T: int,
    D: int,
    C: int,
    hidden: list[int],
    N: int,
    optimizer: int,
    momentum: bool,
    clips: bool,
    tf32: bool,
) -> str: ...
def evaluate_path(
    device_index: int, V: int, T: int, D: int, C: int, hidden: list[int], tf32: bool
) -> str: ...
def isa() -> str: ...
def isa_error() -> str | None: ...
def isas_available() -> str: ...
def num_threads() -> int: ...
def limit_threads(count: int) -> int: ...
def parallel_backend() -> str: ...
def train_steps_sharing(
    models: int,
    rows: int,
    vocabulary: int,
    context: int,
    widths: list[int],
    float64: bool,
    input_dropout: bool,
) -> tuple[int, int]: ...
def fma_peak(seconds: float) -> float: ...
def thread_latency() -> tuple[float, float]: ...
def torch_output_like(tensor: Tensor) -> Tensor: ...
def empty_cache() -> None: ...
def cache_info() -> dict[str, Any]: ...
def set_cache_limit(bytes: int) -> None: ...
def load_cuda_library(path: str) -> tuple[bool, str, str]: ...
def check_cuda_errors() -> None: ...
