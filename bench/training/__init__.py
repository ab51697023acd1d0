"""Training steps: the cases, stock PyTorch's loops and those of mlpkern."""
