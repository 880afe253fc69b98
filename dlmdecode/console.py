"""What every command reads and prints: model, prompt, errors, text without control characters."""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Collection
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from dlmdecode.models.quantize import KINDS
from dlmdecode.options import SYNTAX
from dlmdecode.settings import DEFAULT_SAMPLER, SETTINGS, Settings, parse

if TYPE_CHECKING:
    from rich.console import Console

EXPECTED = (ValueError, TypeError, OSError, FloatingPointError)
"""What the library raises for a bad argument, file or model: a line for the user, no traceback."""

CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories that move, hide or turn around text
KEPT = "\n\t\u200c\u200d"  # the last two join or part letters and emoji


def printable(text: str, out: TextIO) -> str:
    """`text` as `out` may get it. Models, checkpoints and data are untrusted, and a terminal obeys
    what is printed on it; a file or a pipe gets the text as it is."""
    return without_controls(text) if out.isatty() else text


def without_controls(text: str) -> str:
    """`text` with every control character but line ends, tabs and joiners as �."""
    return "".join(
        "\ufffd" if unicodedata.category(c) in CONTROL and c not in KEPT else c
        for c in text.replace("\r\n", "\n")
    )


def terminal(out: TextIO) -> Console:
    """`out` for rich: text is no markup, and only a terminal gets colours and controls."""
    from rich.console import Console

    return Console(
        file=out,
        force_terminal=out.isatty(),
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def fail(message: str) -> int:
    """Say on standard error what was wrong, in one line; the exit code of a user's error."""
    line = without_controls(" ".join(message.split()))
    print(f"dlmdecode: error: {line}", file=sys.stderr)
    return 2


def read_prompt(argument: str) -> str:
    """The prompt that an argument means: `-` is standard input without its last line break.

    Raises:
        ValueError: standard input is not UTF-8.
    """
    if argument != "-":
        return argument
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompt: standard input is not UTF-8 at byte {error.start}") from error
    return text.removesuffix("\n").removesuffix("\r")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Give a command the arguments of `load`; `load_model` reads them."""
    add = parser.add_argument
    add("--model", default="tiny", help="embedded name, folder or hub id (tiny)")
    add("--device", help="where to put the weights (a GPU if there is one)")
    add("--dtype", default="auto", help="such as bfloat16 (the checkpoint's)")
    add("--revision", help="branch, tag or commit of a hub id")
    add("--quantize", choices=KINDS, help="pack the weights (needs the extra 'quantize')")
    how = "spread the model over all GPUs (needs the extra 'placement')"
    add("--device-map", choices=("auto",), help=how)


def load_model(arguments: argparse.Namespace) -> Any:
    """The model that the arguments of `add_model` name."""
    from dlmdecode import load

    return load(arguments.model, **loading(arguments))


def loading(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load` beside the name, from those of `add_model`."""
    names = ("device", "dtype", "revision", "quantize", "device_map")
    return {name: vars(arguments)[name] for name in names}


def add_sampler(parser: argparse.ArgumentParser) -> None:
    sampler = parser.add_argument(
        "--sampler",
        default=DEFAULT_SAMPLER,
        metavar=SYNTAX,
        help=f"such as adablock+credit,alpha=0.5; see dlmdecode samplers ({DEFAULT_SAMPLER})",
    )
    sampler.completer = sampler_names  # type: ignore[attr-defined]  # argcomplete's


def sampler_names(prefix: str, **_: Any) -> list[str]:
    """The samplers that a word may become, the last one of a composition."""
    from dlmdecode import list_samplers

    before, plus, _last = prefix.rpartition("+")
    return [before + plus + name for name in list_samplers()]


def add_settings(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Give a command one option for each setting; what is not given stays out of its arguments."""
    for setting in (one for one in fields(Settings) if one.name not in without):
        names = (setting.name, *setting.metadata["aliases"])
        parser.add_argument(
            *(f"--{name.replace('_', '-')}" for name in names),
            dest=setting.name,
            type=partial(parse, setting.name),
            default=argparse.SUPPRESS,
            metavar="X",
            help=f"{setting.metadata['help']} ({str(setting.default).lower()})",
        )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that a command was given."""
    return {name: value for name, value in vars(arguments).items() if name in SETTINGS}
