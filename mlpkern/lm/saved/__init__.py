"""A run on disk: its folder and lock, log, checkpoints, JSON records, and its words."""
