"""Many models trained side by side, and the learning-rate finder."""
