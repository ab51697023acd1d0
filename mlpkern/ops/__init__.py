"""The differentiable ops, one module each: checks, autograd.Function, functional, torch.library."""

from __future__ import annotations
