"""`dlmdecode infill`: pieces of text and lengths of gaps in, the whole text out.

dlmdecode infill $'def area(r):\n    return ' 12 $'\n\nprint(area(2))'
"""

from __future__ import annotations

import argparse

from dlmdecode.checks import require
from dlmdecode.console import (
    add_model,
    add_sampler,
    add_settings,
    given_settings,
    load_model,
    read_prompt,
)
from dlmdecode.infilling import REFUSED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pieces",
        nargs="+",
        metavar="PIECE",
        help="a text, - to read it from standard input, or a number: a gap of so many tokens",
    )
    add_model(parser)
    add_sampler(parser)
    add_settings(parser, without=REFUSED)
    parser.add_argument("--json", action="store_true", help="one JSON object with text and gaps")


def run(arguments: argparse.Namespace) -> None:
    from dlmdecode import infill
    from dlmdecode.commands.terminal import show_texts

    given = arguments.pieces
    fix = "standard input is read once: give - for one piece only"
    require(given.count("-") <= 1, "PIECE", "-", fix)
    pieces = [int(piece) if piece.isdecimal() else read_prompt(piece) for piece in given]
    fix = "one of them is a number, the tokens of a gap: as in infill 'The capital is ' 4 '.'"
    require(any(isinstance(piece, int) for piece in pieces), "PIECE", given, fix)
    model, options = load_model(arguments), given_settings(arguments)
    show_texts(
        model,
        arguments,
        options,
        lambda view: infill(model, pieces, arguments.sampler, on_step=view, **options),
    )
