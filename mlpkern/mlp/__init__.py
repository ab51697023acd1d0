"""A whole MLP as arrays: parameters, optimizer state, and the arguments of a training call."""
