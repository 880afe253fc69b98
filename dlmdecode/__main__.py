"""`python -m dlmdecode` is the command `dlmdecode`."""

import sys

from dlmdecode.commands.cli import main

sys.exit(main())
