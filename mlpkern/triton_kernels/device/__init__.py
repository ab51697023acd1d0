"""What the Triton kernels share: launching, the interpreter, bad ids."""
