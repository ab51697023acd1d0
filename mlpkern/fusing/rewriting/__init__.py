"""Rewrites the methods of a module so that a layer and the function after it run as one op."""
