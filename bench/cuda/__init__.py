"""The cases of a GPU: providers, limits, training steps."""
