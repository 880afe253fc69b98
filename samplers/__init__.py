"""The built-in samplers: one paper, one file. Importing this package registers them."""

from dlmdecode.samplers import (  # noqa: F401
    dream,
    prophet,
    threshold,
    vanilla,
)
