"""The names of the optimizers, for the help of commands, which does not need torch."""

OPTIMIZERS = ("sgd", "adamw")
