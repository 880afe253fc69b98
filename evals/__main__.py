"""`python -m dlmdecode.evals` is `dlmdecode eval`."""

import sys
from collections.abc import Sequence

from dlmdecode.commands.cli import main as command


def main(argv: Sequence[str] | None = None) -> int:
    return command(["eval", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
