"""The backend cuda: the compiled CUDA kernels, and what torch decides about them."""
