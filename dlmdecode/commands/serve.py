"""`dlmdecode serve`: an HTTP server with OpenAI's interface."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from dlmdecode.checks import require, whole
from dlmdecode.console import add_model, add_settings, given_settings, load_model
from dlmdecode.options import SYNTAX
from dlmdecode.presets import AUTO, preset_of
from dlmdecode.serve.limits import Limits
from dlmdecode.settings import DEFAULT_SAMPLER

LIMITS = {
    "body": "bytes of a request",
    "tokens": "positions of a text",
    "choices": "texts of a request",
    "queue": "texts that wait for a place",
    "engines": "samplers with settings that are decoded side by side",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add = parser.add_argument
    add("--sampler", default=DEFAULT_SAMPLER, metavar=SYNTAX,
        help=f"where a request names none ({DEFAULT_SAMPLER})")  # fmt: skip
    add_settings(parser, without=("num_return_sequences",))  # a request says n
    add("--name", help="of the model in requests (that of --model)")
    add("--batch-size", type=int, default=16, help="texts in flight at a time (16)")
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    add("--port", type=int, default=8000, help="(8000)")
    add("--api-key", help="what clients must send; better in the variable DLMDECODE_API_KEY")
    how = "models that share the requests; more than 1 run under Ray Serve (extra 'ray')"
    add("--replicas", type=int, default=1, help=how)
    for limit in fields(Limits):
        purpose = f"most {LIMITS[limit.name]} ({limit.default})"
        add(f"--most-{limit.name}", type=int, default=limit.default, help=purpose)


def run(arguments: argparse.Namespace) -> None:
    for name in ("batch_size", "replicas", *(f"most_{limit.name}" for limit in fields(Limits))):
        whole(name, vars(arguments)[name])
    require(0 <= arguments.port < 2**16, "port", arguments.port, "give 0 (a free one) to 65535")
    if arguments.api_key is None:
        arguments.api_key = os.environ.get("DLMDECODE_API_KEY")
    empty = "an empty one would let nobody in or all: give a key, or leave it and the variable out"
    require(arguments.api_key != "", "api_key", arguments.api_key, empty)
    if arguments.replicas > 1:
        from dlmdecode.serve.replicas import serve_replicas

        device = (arguments.device or "").startswith("cuda")
        serve_replicas(lambda: application(arguments), arguments.replicas, 1 if device else 0,
                       arguments.host, arguments.port)  # fmt: skip
    else:
        from dlmdecode.serve.server import serve

        serve(application(arguments), arguments.host, arguments.port)


def application(arguments: argparse.Namespace) -> Any:
    """The application that the arguments mean, its model loaded."""
    from dlmdecode.engine import Engine
    from dlmdecode.serve.app import create_app
    from dlmdecode.serve.reading import Served

    limits = Limits(**{f.name: vars(arguments)[f"most_{f.name}"] for f in fields(Limits)})
    batch_size, options = arguments.batch_size, given_settings(arguments)
    model = load_model(arguments)
    require(model.tokenizer is not None, "model", arguments.model, "it has no tokenizer")
    sampler = arguments.sampler
    if sampler == AUTO:
        sampler = str(preset_of(model))
    Engine(model, sampler, batch_size=batch_size, **options)  # refuses what is wrong
    has_template = getattr(model.tokenizer, "chat_template", None) is not None
    name = arguments.name or Path(arguments.model).name
    served = Served(name, has_template, sampler, options, limits)
    return create_app(model, served, batch_size=batch_size, api_key=arguments.api_key)
