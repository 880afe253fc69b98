"""The command `dlmdecode`. Each subcommand imports what it needs, so that none breaks another.

dlmdecode generate "Tom has 12 apples. He buys 8 more. He gives 5 to Emma. How many …"
dlmdecode samplers
dlmdecode COMMAND --help
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

EXPECTED = (ValueError, TypeError, OSError, FloatingPointError)
"""What the library raises for a bad argument, file or model: a line for the user, no traceback."""

MOUNTED = {
    "speculate": "draft with a diffusion model, verify with a causal one",
    "ngram": "build n-gram models that guide drafts",
    "eval": "GSM8K, HumanEval and arithmetic: accuracy against speed",
}
INSIDE = """\
inside the commands:
  bench samplers           accuracy, forwards and time of many samplers
  eval TASK                a run of arithmetic, functions, gsm8k or humaneval
  eval TASK --engine ray   the same over a Ray cluster
  eval report DIR          table, CSV and plot of runs
  eval tune TASK           fastest setting of a sampler within an accuracy budget
  ngram build TEXT         an n-gram model of texts, for speculate --proxy

python -m dlmdecode.lm_eval is EleutherAI's lm-evaluation-harness with these models
"""
GENERATION = (
    *("max_new_tokens", "block_length", "steps", "temperature", "cache", "cfg_scale"),
    *("seed", "eos"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or 2 for a user's error, or 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = build_parser(argv[0] if argv else "").parse_args(argv)
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe left; keep the exit from flushing into it
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dlmdecode"):
            raise
        return fail(f"this needs the package {error.name!r}: pip install 'dlmdecode[all]'")
    except EXPECTED as error:
        return fail(str(error))


def fail(message: str) -> int:
    print(f"dlmdecode: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> Any:
        self.exit(fail(f"{message}; see {self.prog} --help"))


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """The parser of all commands; of the mounted ones only `command` has its arguments."""
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
    add_trace(commands)
    add_samplers(commands)
    add_bench(commands)
    add_demo(commands)
    for name, purpose in MOUNTED.items():
        mounted = commands.add_parser(name, help=purpose, description=purpose)
        if name == command:
            mount(mounted, name)
    return parser


def mount(parser: argparse.ArgumentParser, name: str) -> None:
    """Give a command that lives in another part of the package its arguments and its function."""
    if name == "eval":
        module = importlib.import_module("dlmdecode.evals.__main__")
    else:
        module = importlib.import_module("dlmdecode.speculation.cli")
    prefix = "" if name != "ngram" else "ngram_"
    getattr(module, f"add_{prefix}arguments")(parser)
    parser.set_defaults(run=getattr(module, f"{prefix}run"))


def add_generate(commands: Any) -> None:
    parser = commands.add_parser("generate", help="decode a prompt")
    add_generation_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the text")
    parser.set_defaults(run=run_generate)


def add_trace(commands: Any) -> None:
    parser = commands.add_parser("trace", help="decode a prompt and print what each step wrote")
    add_generation_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a step")
    parser.set_defaults(run=run_trace)


def add_samplers(commands: Any) -> None:
    parser = commands.add_parser("samplers", help="list the samplers and their options")
    parser.add_argument("name", nargs="*", help="only these, with their description")
    parser.add_argument("--json", action="store_true", help="one JSON object a sampler")
    parser.add_argument("--compose", action="store_true", help="which pairs can be combined")
    parser.add_argument("--markdown", action="store_true", help="the table of the README")
    add_set(parser)

    def run(arguments: argparse.Namespace) -> None:
        from dlmdecode import catalogue

        if arguments.markdown:
            print(catalogue.markdown())
        elif arguments.compose:
            print(catalogue.matrix(arguments.name, dict(arguments.set)))
        else:
            print(catalogue.listing(arguments.name, arguments.json))

    parser.set_defaults(run=run)


def add_bench(commands: Any) -> None:
    parser = commands.add_parser("bench", help="measure samplers against each other")
    topics = parser.add_subparsers(dest="topic", required=True, metavar="TOPIC")
    samplers = topics.add_parser("samplers", help="accuracy, forwards and time on word problems")
    from dlmdecode import bench

    bench.add_arguments(samplers)
    samplers.set_defaults(run=bench.run)


def add_demo(commands: Any) -> None:
    parser = commands.add_parser("demo", help="one word problem, decoded by vanilla and by prophet")
    parser.add_argument("--seed", type=int, default=0, help="which held-out problem")

    def run(arguments: argparse.Namespace) -> None:
        from dlmdecode import demo

        print(demo.compare(arguments.seed))

    parser.set_defaults(run=run)


def add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="the text to answer, or - to read it from standard input")
    parser.add_argument("--model", default="tiny", help="embedded name, folder or hub id (tiny)")
    parser.add_argument("--sampler", default="threshold", help="a name, or a+b+c (threshold)")
    add_set(parser)
    whole: dict[str, Any] = {"type": int, "metavar": "N", "default": argparse.SUPPRESS}
    number: dict[str, Any] = {"type": float, "metavar": "X", "default": argparse.SUPPRESS}
    choice: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("--max-new-tokens", **whole, help="length of the canvas (256)")
    parser.add_argument(
        "--block-length", type=value_of, metavar="N", **choice, help="none: one block (32)"
    )
    parser.add_argument("--steps", **whole, help="steps of scheduled samplers, over all blocks")
    parser.add_argument("--temperature", **number, help="0 takes the best token (0)")
    parser.add_argument("--cache", metavar="POLICY", **choice, help="none, prefix or dual (none)")
    parser.add_argument("--cfg-scale", **number, help="classifier-free guidance (0: off)")
    parser.add_argument("--seed", **whole, help="key of all randomness (0)")
    parser.add_argument("--eos", metavar="POLICY", **choice, help="stop or ignore (stop)")
    parser.add_argument("--raw", action="store_true", help="do not apply the chat template")
    parser.add_argument("--device", help="where to put the weights (a GPU if there is one)")
    parser.add_argument("--dtype", default="auto", help="such as bfloat16 (the checkpoint's)")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        type=assignment,
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the sampler; repeatable",
    )


def assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form option=value")
    return name, value_of(value)


def value_of(text: str) -> Any:
    """none, true, false, a number, JSON in brackets, a comma-separated tuple, or else the text."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    if text[:1] in ("[", "{", '"'):
        with contextlib.suppress(json.JSONDecodeError):
            return hashable(json.loads(text))
    if "," in text:
        return tuple(value_of(part) for part in text.split(","))
    return text


def hashable(value: Any) -> Any:
    """Lists as tuples, and objects with whole-number names as dicts with such keys."""
    if isinstance(value, list):
        return tuple(map(hashable, value))
    if isinstance(value, dict):
        return {int(k) if k.lstrip("-").isdigit() else k: hashable(v) for k, v in value.items()}
    return value


def prepare(arguments: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """Model, prompt and options of `generate` that the arguments mean."""
    from dlmdecode import load
    from dlmdecode.models.domain import advise
    from dlmdecode.models.loading import EMBEDDED

    text = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    options = {name: getattr(arguments, name) for name in GENERATION if name in arguments}
    options |= dict(arguments.set)
    model = load(arguments.model, arguments.device, arguments.dtype, arguments.revision)
    if arguments.model in EMBEDDED:
        advise(arguments.model, text, model.tokenizer, "--model FOLDER or OWNER/NAME")
    if arguments.raw or getattr(model.tokenizer, "chat_template", None) is None:
        return model, text, options
    return model, [{"role": "user", "content": text}], options


def run_generate(arguments: argparse.Namespace) -> None:
    from dlmdecode import generate
    from dlmdecode.terminal import CanvasView

    model, prompt, options = prepare(arguments)
    live = sys.stdout.isatty() and not arguments.json and os.environ.get("TERM") != "dumb"
    view = CanvasView(model, sys.stdout) if live else None
    try:
        out = generate(model, prompt, arguments.sampler, on_step=view, **options)
    finally:
        if view is not None:
            view.clear()
    (text,) = out.texts or [""]
    if arguments.json:
        record = {"text": text, "sampler": arguments.sampler, "options": options}
        record |= {"nfe": out.nfe[0], "new_tokens": out.new_tokens[0], "stats": out.stats}
        print(json.dumps(record))
        return
    print(text)
    if view is not None:
        print(view.summary(out))


def run_trace(arguments: argparse.Namespace) -> None:
    from dlmdecode import stream
    from dlmdecode.terminal import StepPrinter

    model, prompt, options = prepare(arguments)
    printer = StepPrinter(model, as_json=arguments.json)
    for step in stream(model, prompt, arguments.sampler, **options):
        print(printer(step), flush=True)
