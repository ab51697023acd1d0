"""The model, its settings and its state in training."""
