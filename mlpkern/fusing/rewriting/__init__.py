"""Rewriting the source of a forward that calls functions instead of layers."""
