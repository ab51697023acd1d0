"""Symbolic traces of a module's forward, and what the ops and layers of the package compute."""
