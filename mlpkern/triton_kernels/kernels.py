"""The functions of the backend that run a Triton kernel; importing this module imports Triton."""

from mlpkern.triton_kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from mlpkern.triton_kernels.device.bad_id import check_errors
from mlpkern.triton_kernels.embedding_gather import (
    embedding_gather_backward,
    embedding_gather_forward,
)
from mlpkern.triton_kernels.linear_tanh import linear_tanh_backward, linear_tanh_forward

__all__ = [
    "check_errors",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "embedding_gather_backward",
    "embedding_gather_forward",
    "linear_tanh_backward",
    "linear_tanh_forward",
]
