"""`python -m dlmdecode` is the command `dlmdecode`."""

import sys

from dlmdecode.cli import main

sys.exit(main())
