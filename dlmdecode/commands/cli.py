"""The command `dlmdecode`. Each subcommand imports what it needs, so that none breaks another.

dlmdecode generate "Tom has 12 apples. He buys 8 more. He gives 5 to Emma. How many …"
dlmdecode samplers
dlmdecode COMMAND --help
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from dlmdecode.commands.caches import add_caches
from dlmdecode.commands.generate import add_generate, add_trace
from dlmdecode.console import EXPECTED, fail, terminal

MOUNTED = {
    "chat": "turns of a conversation",
    "demo": "a word problem, decoded by three samplers",
    "infill": "write what is missing between pieces of text",
    "models": "list the model families, and the tensors of a configuration",
    "speculate": "draft with a diffusion model, verify with a causal one",
    "ngram": "build n-gram models that guide drafts",
    "serve": "answer requests over HTTP, as OpenAI's servers do",
    "eval": "GSM8K, HumanEval and arithmetic: accuracy against speed",
}
INSIDE = """\
inside the commands:
  bench samplers           accuracy, forwards and time of many samplers
  eval TASK                a run of arithmetic, functions, gsm8k or humaneval
  eval TASK --engine ray   the same over a Ray cluster
  eval report DIR          table, CSV and plot of runs
  eval tune TASK           fastest setting of a sampler within an accuracy budget
  eval frontier TASK       every sampler swept: table, picture, and the best within the budget
  ngram build TEXT         an n-gram model of texts, for speculate --proxy
  trace view RUN --html F  a page that shows files of generate --trace and speculate --trace
  trace plot RUN           figures of them

python -m dlmdecode.evals.lm_eval is EleutherAI's lm-evaluation-harness with these models
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or 2 for a user's error, or 130 after Ctrl-C."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed: nothing comes from it, or is read there
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):  # no text fails for want of a character
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            return run(sys.argv[1:] if argv is None else list(argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe left; keep the exit from flushing into it
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run(argv: list[str]) -> int:
    if "_ARGCOMPLETE" in os.environ:
        complete(os.environ.get("COMP_LINE", ""))
    try:
        arguments = build_parser(*argv[:2]).parse_args(argv)
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print("dlmdecode: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dlmdecode"):
            raise
        return fail(f"this needs the package {error.name!r}: pip install 'dlmdecode[all]'")
    except EXPECTED as error:
        return fail(str(error))


def complete(line: str) -> None:
    """Answer a shell that asks how a line may go on (argcomplete's protocol), and exit."""
    import argcomplete

    argcomplete.autocomplete(build_parser(*line.split()[1:3]))


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> Any:
        self.exit(fail(f"{message}; see {self.prog} --help"))


def build_parser(command: str = "", topic: str = "") -> argparse.ArgumentParser:
    """The parser of all commands; of the mounted ones only `command` has its arguments.

    `topic` is the word behind it, by which `trace view` is told from the trace of a prompt.
    """
    from dlmdecode import __version__

    parser = Parser(
        prog="dlmdecode",
        description="Decode diffusion language models.",
        epilog=INSIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dlmdecode {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_generate(commands)
    add_trace(commands, topic)
    add_samplers(commands)
    add_caches(commands)
    add_bench(commands)
    for name, purpose in MOUNTED.items():
        mounted = commands.add_parser(name, help=purpose, description=purpose)
        if name == command:
            mount(mounted, name)
    return parser


def mount(parser: argparse.ArgumentParser, name: str) -> None:
    """Give a command that lives in another part of the package its arguments and its function."""
    own = ("chat", "demo", "infill", "models", "serve")
    home = "evaluate" if name == "eval" else name if name in own else "speculate"
    module = importlib.import_module(f"dlmdecode.commands.{home}")
    if name == "ngram":
        add, run = module.add_ngram_arguments, module.ngram_run
    else:
        add, run = module.add_arguments, module.run
    add(parser)
    parser.set_defaults(run=run)


def add_samplers(commands: Any) -> None:
    parser = commands.add_parser("samplers", help="list the samplers and their options")
    of_pairs = "; with --compose, each as NAME[,OPTION=VALUE]…"
    parser.add_argument("name", nargs="*", help=f"only these, with their description{of_pairs}")
    parser.add_argument("--json", action="store_true", help="one JSON object a sampler")
    parser.add_argument("--compose", action="store_true", help="which pairs can be combined")
    parser.add_argument("--markdown", action="store_true", help="the table of the README")

    def run(arguments: argparse.Namespace) -> None:
        from dlmdecode.commands import catalogue
        from dlmdecode.tables import show_table

        if arguments.markdown:
            print(catalogue.markdown())
        elif arguments.compose:
            text, screen = catalogue.matrix(arguments.name), terminal(sys.stdout)
            if screen.is_terminal and screen.width <= len(text.split("\n")[1]):
                show_table(catalogue.partners(arguments.name))
            else:
                print(text)
        elif arguments.name or arguments.json:
            print(catalogue.described(arguments.name, arguments.json))
        else:
            show_table(catalogue.table())

    parser.set_defaults(run=run)


def add_bench(commands: Any) -> None:
    parser = commands.add_parser("bench", help="measure samplers against each other")
    topics = parser.add_subparsers(dest="topic", required=True, metavar="TOPIC")
    samplers = topics.add_parser("samplers", help="accuracy, forwards and time on word problems")
    from dlmdecode.evals import bench

    bench.add_arguments(samplers)
    samplers.set_defaults(run=bench.run)
