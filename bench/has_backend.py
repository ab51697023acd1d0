"""Whether a backend of mlpkern serves here; says how or why not. Exit status 0 if so.

python bench/has_backend.py cuda
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


def main(arguments: list[str]) -> int:
    import mlpkern

    backend = mlpkern.backends()[arguments[0]]
    said = backend.detail if backend.available else f"does not serve: {backend.reason}"
    print(f"• backend {arguments[0]} {said}")
    return 0 if backend.available else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
