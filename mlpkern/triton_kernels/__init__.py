"""The ops as Triton kernels; the backend ``triton`` is `mlpkern.triton_kernels.backend`."""
