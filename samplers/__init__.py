"""The built-in samplers: one paper, one file. Importing this package registers them."""

from dlmdecode.samplers import (  # noqa: F401
    adablock,
    ass,
    ccd,
    credit,
    dream,
    entropy_bound,
    eoser,
    factor,
    frechet,
    freedave,
    hierarchy,
    klass,
    learn2pd,
    localleap,
    prophet,
    streaming,
    threshold,
    vanilla,
    wino,
)
