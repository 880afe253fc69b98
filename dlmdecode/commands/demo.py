"""`dlmdecode demo`: a word problem under three samplers, the canvas filling up, and a table."""

from __future__ import annotations

import argparse
import sys

from dlmdecode.commands.terminal import watching
from dlmdecode.console import printable
from dlmdecode.evals.arithmetic import problem
from dlmdecode.evals.demo import SAMPLERS, Answer, table
from dlmdecode.models.loading import load
from dlmdecode.tables import show_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="which held-out problem")


def run(arguments: argparse.Namespace) -> None:
    model, asked = load("tiny"), problem(arguments.seed, split="heldout")
    print(f"{asked.question}\n")
    answers = []
    for name in SAMPLERS:
        with watching(model) as view:
            answer = Answer.of(model, asked, name, view)
        print(f"{name}: {printable(answer.text, sys.stdout)}\n")
        answers.append(answer)
    show_report([table(answers)])
