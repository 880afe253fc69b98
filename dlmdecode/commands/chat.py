"""`dlmdecode chat`: turns of a conversation, each answer decoded on the canvas behind it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dlmdecode.checks import require
from dlmdecode.console import (
    add_model,
    add_sampler,
    add_settings,
    given_settings,
    load_model,
    printable,
    without_controls,
)

HELP = "/new forgets the turns, /undo the last one, Ctrl-D ends"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_sampler(parser)
    add_settings(parser)
    parser.add_argument("--system", metavar="TEXT", help="a message of the system before the turns")


def run(arguments: argparse.Namespace) -> None:
    """Read a line, answer it, until the input ends."""
    options, model = given_settings(arguments), load_model(arguments)
    template = getattr(model.tokenizer, "chat_template", None)
    fix = "it has no chat template: use generate --raw"
    require(template is not None, "--model", arguments.model, fix)
    several = options.get("num_return_sequences", 1)
    require(several == 1, "num_return_sequences", several, "a turn has one answer")
    begin = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
    turns = list(begin)
    if sys.stdin.isatty():
        print(HELP)
    while (line := read_line()) is not None:
        if line == "/new":
            turns = list(begin)
        elif line == "/undo":
            del turns[max(len(turns) - 2, len(begin)) :]
        elif line:
            turns = answered(model, [*turns, {"role": "user", "content": line}], arguments, options)


def read_line() -> str | None:
    """What was typed, None where the input has ended."""
    try:
        return input("> " if sys.stdin.isatty() else "").lstrip("\ufeff").strip()
    except EOFError:
        return None


def answered(
    model: Any, turns: list[dict[str, str]], arguments: argparse.Namespace, options: dict[str, Any]
) -> list[dict[str, str]]:
    """The turns and the answer, which is printed; without the last turn where that is too long."""
    from dlmdecode import generate
    from dlmdecode.commands.terminal import watching

    try:
        with watching(model) as view:
            out = generate(model, turns, arguments.sampler, on_step=view, **options)
    except ValueError as error:
        if len(turns) <= 1 + (arguments.system is not None):  # it is not for the turns' length
            raise
        print(f"dlmdecode: {without_controls(str(error))}", file=sys.stderr)
        return turns[:-1]
    text = out.texts[0].strip() if out.texts else ""
    print(printable(text, sys.stdout), flush=True)
    if view is not None:
        view.summary(out)
    return [*turns, {"role": "assistant", "content": text}]
