"""What the kernels claim about their machine code, see sass_lint.py. The last matching row counts.

Patterns are those of fnmatch over the names in budget.json.
"""

CLAIMS: list[tuple[str, set[str]]] = []
