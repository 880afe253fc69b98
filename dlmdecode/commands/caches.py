"""`dlmdecode caches`: the cache policies, their options, and what they were verified against."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlmdecode.tables import Table

NOT_HERE = (
    (
        "Elastic-Cache",
        "arXiv 2510.14973",
        "what is claimed fails, re-run by Polestar's authors (arXiv 2607.14107):"
        " 1.15 times Fast-dLLM on LLaDA, slower and less accurate than it on Dream",
    ),
    (
        "Dynamic-dLLM",
        "arXiv 2606.26120",
        "its threshold drifts to 0: 44.1 % where 78.0 % is the base,"
        " in a run of others on LLaDA and GSM8K",
    ),
)


def add_caches(commands: Any) -> None:
    parser = commands.add_parser("caches", help="list the cache policies and their options")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from dlmdecode.tables import show_table

    show_table(listing())


def listing() -> Table:
    """The cache policies, and those that are left out, with the reason."""
    from dlmdecode.caches.registry import REGISTRY
    from dlmdecode.commands.catalogue import show
    from dlmdecode.tables import Table

    rows = []
    for name in REGISTRY.names():
        entry = REGISTRY.entry(name)
        options = ", ".join(f"{k}={show(v)}" for k, v in entry.options().items())
        rows.append((name, options, entry.verified if entry.paper else "", entry.paper, entry.help))
    rows += [(name, "", "left out", paper, reason) for name, paper, reason in NOT_HERE]
    return Table(("cache", "options", "verified", "source", "what it does"), rows)
