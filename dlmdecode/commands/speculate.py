"""The commands `dlmdecode speculate` and `dlmdecode ngram`.

dlmdecode speculate "Tom has 12 apples. He buys 8 more. He gives 5 to Emma. How many …"
dlmdecode ngram build corpus.txt --tokenizer tiny --output corpus.safetensors
dlmdecode speculate PROMPT --proxy corpus.safetensors
dlmdecode speculate PROMPT --drafter lookup,longest=5
dlmdecode speculate PROMPT --drafter suffix --corpus texts.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.text import Text

from dlmdecode.checks import require
from dlmdecode.commands.corpus import FORMAT, drafter_of, give, read_texts
from dlmdecode.console import printable, read_prompt, terminal, without_controls
from dlmdecode.models.quantize import KINDS
from dlmdecode.options import value_of

DRAFTER = "diffusion model (name, hub id or folder), or drafter: NAME[,OPTION=VALUE,…]"
OPTIONS: dict[str, dict[str, Any]] = {
    "max_new_tokens": {"type": int, "metavar": "N"},
    "temperature": {"type": float, "help": "0 is greedy"},
    "path_search": {"choices": ("cps", "argmax", "tree")},
    "proxy": {"metavar": "FILE", "help": "n-gram of `dlmdecode ngram build`, or a KenLM file"},
    "draft_length": {
        "type": value_of,
        "metavar": "N",
        "help": "a number, adaptive, confidence, cost or entropy",
    },
    "draft_steps": {"type": int, "metavar": "N", "help": "denoising steps per draft"},
    "acceptance": {"choices": ("exact", "typical"), "help": "typical: another text, faster"},
    "vocabulary": {"choices": ("auto", "identity", "string_match", "retokenize")},
    "seed": {"type": int},
    "trace": {"metavar": "RUN.jsonl", "help": "append the run, for dlmdecode trace"},
}
"""Arguments of `speculate`, whose signature has their defaults: one not given is not passed on."""

ACCEPTED, OWN, REJECTED = ("green", ""), ("bold", "+"), ("red strike", "-")  # style, sign


class ListDrafters(argparse.Action):
    """Prints the drafters of the registry and their options, and ends the command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from dlmdecode.commands.catalogue import show
        from dlmdecode.speculation.drafters.registry import DRAFTERS

        for entry in map(DRAFTERS.entry, DRAFTERS.names()):
            print(f"{entry.name}  {entry.paper}".rstrip() + f"\n  {entry.help}")
            for name, value in entry.options().items():
                print(f"  {name}={show(value)}")
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dlmdecode speculate`."""
    add = parser.add_argument
    add("prompt", help="the text to continue, or - to read it from standard input")
    add("--drafter", default="tiny", metavar="X", help=DRAFTER)
    help = "print NAME and OPTION of drafters, and exit"
    add("--list-drafters", action=ListDrafters, nargs=0, help=help)
    help = f"texts that drafters such as suffix look up, may be given again: {FORMAT}"
    add("--corpus", action="append", type=Path, metavar="FILE", help=help)
    add("--verifier", default="tiny-ar", help="causal model: name, hub id, folder or .gguf file")
    help = "pack the verifier's weights (needs the extra 'quantize')"
    add("--quantize", choices=KINDS, help=help)
    add("--chat", action="store_true", help="put the prompt into the verifier's chat template")
    add("--quiet", action="store_true", help="the text only")
    add("--json", action="store_true", help="one JSON object: text and statistics")
    for name, how in OPTIONS.items():
        add(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, **how)


def run(arguments: argparse.Namespace) -> None:
    """Draft and verify, showing what is accepted and what is not as it goes."""
    from dlmdecode.models.domain import advise
    from dlmdecode.speculation.loop import speculate
    from dlmdecode.speculation.verifier.verifier import EMBEDDED, load_verifier

    arguments.prompt = read_prompt(arguments.prompt)
    drafter, corpus = arguments.drafter, arguments.corpus
    if corpus:
        texts = read_texts(corpus, "--corpus")
        drafter = drafter_of(drafter, [str(path) for path in corpus])
    verifier = load_verifier(arguments.verifier, quantize=arguments.quantize)
    if arguments.verifier in EMBEDDED:
        options = "--verifier MODEL and --drafter DIFFUSION_MODEL"
        advise(arguments.verifier, arguments.prompt, options)
    if corpus:
        give(drafter, texts, verifier)
    prompt: Any = arguments.prompt
    if arguments.chat:
        prompt = [{"role": "user", "content": prompt}]
    given = {name: vars(arguments)[name] for name in OPTIONS if name in arguments}
    show = not (arguments.quiet or arguments.json)
    out = speculate(
        drafter,
        verifier,
        prompt,
        on_step=Progress(verifier.tokenizer, sys.stdout).show if show else None,
        **given,
    )
    text = out.texts[0] if out.texts is not None else ""
    if arguments.json:
        print(json.dumps({"prompt": arguments.prompt, "text": text, "stats": out.stats}))
        return
    print(("\n" if show else "") + printable(text, sys.stdout))
    if show:
        print("\n" + summary(out.stats))


class Progress:
    """Prints a line per step: accepted draft, the verifier's own token, rejected draft."""

    def __init__(self, tokenizer: Any, out: TextIO):
        self.tokenizer, self.console = tokenizer, terminal(out)
        self.colour = self.console.color_system is not None and not self.console.no_color

    def show(self, step: Any) -> None:
        accepted, own = step.written[: step.accepted], step.written[step.accepted :]
        rejected = [id for node, id in enumerate(step.draft) if node not in step.path]
        line = Text(f"{step.number:3}  {step.accepted:2} of {len(step.draft):2}  ")
        for ids, (style, sign) in ((accepted, ACCEPTED), (own, OWN), (rejected, REJECTED)):
            if ids:
                line.append_text(self.paint(ids, style, sign))
        self.console.print(line, soft_wrap=True)

    def paint(self, ids: Sequence[int], style: str, sign: str) -> Text:
        """Text of ids; without colours, +[the verifier's own] and -[rejected]."""
        text = without_controls(self.tokenizer.decode(list(ids))).replace("\n", "↵")
        return Text(text, style) if self.colour or not sign else Text(f" {sign}[{text}]")


def summary(stats: dict[str, Any]) -> str:
    """The statistics in two lines."""
    lossy = "" if stats["lossless"] else "\nthe text may be another than the verifier's own"
    return (
        f"{stats['new_tokens']} tokens in {stats['verifier_forwards']} forwards of the verifier "
        f"and {stats['drafter_forwards']} of the drafter, {stats['seconds']:.2f} s\n"
        f"accepted {stats['mean_accepted_tokens']:.2f} draft tokens per step, "
        f"{100 * stats['draft_acceptance_rate']:.0f} % of those drafted{lossy}"
    )


def add_ngram_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dlmdecode ngram`."""
    commands = parser.add_subparsers(dest="ngram_command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="count token n-grams of texts")
    add = build.add_argument
    add("texts", nargs="+", type=Path, metavar="TEXT", help=FORMAT)
    add("--tokenizer", required=True, metavar="MODEL", help="the drafter: name, hub id or folder")
    add("--output", required=True, type=Path, metavar="FILE", help="a .safetensors file")
    add("--order", type=int, default=3, metavar="N")
    add("--smoothing", default="kneser_ney", choices=("kneser_ney", "stupid"))


def ngram_run(arguments: argparse.Namespace) -> None:
    """Build an n-gram file."""
    from dlmdecode.models.loading import find_folder, load_tokenizer
    from dlmdecode.speculation.diffuspec.counting import build
    from dlmdecode.speculation.diffuspec.ngram import fingerprint

    output: Path = arguments.output
    fix = "give a .safetensors file in a folder that exists"
    fits = output.suffix == ".safetensors" and output.parent.is_dir() and not output.is_dir()
    require(fits, "--output", str(output), fix)
    folder = find_folder(arguments.tokenizer)
    tokenizer = load_tokenizer(folder)
    require(tokenizer is not None, "--tokenizer", arguments.tokenizer, "it has no tokenizer files")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    texts = read_texts(arguments.texts, "TEXT")
    ids = [row + end for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    size = max(len(tokenizer), max(map(max, ids)) + 1)
    model = build(ids, size, arguments.order, arguments.smoothing, fingerprint(tokenizer))
    model.save(output)
    counts = ", ".join(str(len(order.key)) for order in model.orders)
    tokens = sum(map(len, ids))
    print(f"{len(texts)} texts, {tokens} tokens; n-grams of orders 1 to {model.order}: {counts}")
