"""`python -m dlmdecode` is the command `dlmdecode`."""

import sys

from dlmdecode.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
