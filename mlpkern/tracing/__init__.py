"""Symbolic traces of a module's forward."""
