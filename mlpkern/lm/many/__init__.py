"""Many models in training side by side, and the learning-rate finder."""
