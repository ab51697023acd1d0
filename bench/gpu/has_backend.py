"""Prints whether a backend of mlpkern is available, or why not. Exit status 0 if it is.

python -m bench.gpu.has_backend cuda
"""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    import mlpkern

    backend = mlpkern.backends()[arguments[0]]
    said = backend.detail if backend.available else f"is not available: {backend.reason}"
    print(f"• backend {arguments[0]} {said}")
    return 0 if backend.available else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
