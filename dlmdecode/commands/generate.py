"""The commands `dlmdecode generate`, and `dlmdecode trace` where it decodes.

dlmdecode generate "Tom has 12 apples. He buys 8 more. He gives 5 to Emma. How many …"
dlmdecode trace PROMPT
"""

from __future__ import annotations

import argparse
from typing import Any

from dlmdecode.checks import require
from dlmdecode.console import (
    add_model,
    add_sampler,
    add_settings,
    given_settings,
    load_model,
    read_prompt,
)


def add_generate(commands: Any) -> None:
    from dlmdecode.commands import batch

    parser = commands.add_parser("generate", help="decode a prompt, or a file of them")
    add_generation_arguments(parser, nargs="?")
    batch.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a text instead of it")
    parser.add_argument("--trace", metavar="RUN.jsonl", help="append the run, for dlmdecode trace")
    parser.set_defaults(run=run_generate)


def add_trace(commands: Any, topic: str) -> None:
    from dlmdecode.commands import trace

    help = "decode a prompt and print what each step wrote; view and plot look at files of --trace"
    parser = commands.add_parser("trace", help=help)
    if topic in trace.TOPICS:
        topics = parser.add_subparsers(required=True, metavar="TOPIC")
        for name, purpose in trace.TOPICS.items():
            trace.add_arguments(topics.add_parser(name, help=purpose, description=purpose), name)
        return
    add_generation_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a step")
    parser.set_defaults(run=run_trace)


def add_generation_arguments(parser: argparse.ArgumentParser, **prompt: Any) -> None:
    help = "the text to answer, or - to read it from standard input"
    parser.add_argument("prompt", help=help, **prompt)
    add_model(parser)
    add_sampler(parser)
    add_settings(parser)
    parser.add_argument("--raw", action="store_true", help="do not apply the chat template")


def prepare(arguments: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """Model, prompt and options of `generate` that the arguments mean."""
    from dlmdecode.models.domain import advise
    from dlmdecode.models.loading import EMBEDDED

    text = read_prompt(arguments.prompt)
    options = given_settings(arguments)
    model = load_model(arguments)
    if arguments.model in EMBEDDED:
        advise(arguments.model, text, "--model FOLDER or OWNER/NAME")
    template = getattr(model.tokenizer, "chat_template", None)  # a foreign tokenizer may have none
    if arguments.raw or template is None:
        return model, text, options
    return model, [{"role": "user", "content": text}], options


def run_generate(arguments: argparse.Namespace) -> None:
    from dlmdecode import generate
    from dlmdecode.commands import batch
    from dlmdecode.commands.terminal import show_texts

    if arguments.input is not None:
        return batch.run(arguments)
    require(arguments.prompt is not None, "prompt", None, "give one, or --input FILE.jsonl")
    several = arguments.batch_size is None
    require(several, "--batch-size", arguments.batch_size, "it goes with --input")
    model, prompt, options = prepare(arguments)
    kept = {} if arguments.trace is None else {"trace": arguments.trace}
    out = show_texts(
        model,
        arguments,
        options,
        lambda view: generate(model, prompt, arguments.sampler, on_step=view, **kept, **options),
    )
    if arguments.output is not None:
        texts = "".join(f"{text}\n" for text in out.texts or ())
        arguments.output.write_text(texts, encoding="utf-8")


def run_trace(arguments: argparse.Namespace) -> None:
    from dlmdecode import stream
    from dlmdecode.commands.terminal import StepPrinter

    model, prompt, options = prepare(arguments)
    several = options.get("num_return_sequences", 1)
    require(several == 1, "num_return_sequences", several, "the steps of a single text are shown")
    printer = StepPrinter(model, as_json=arguments.json)
    for step in stream(model, prompt, arguments.sampler, **options):
        print(printer(step), flush=True)
