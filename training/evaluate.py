"""Accuracy of an embedded model on held-out problems, overall and by number of steps.

    python -m training.evaluate --model tiny --n 1000       diffusion, one token per step
    python -m training.evaluate --model tiny-ar --n 1000    autoregressive, greedy
    python -m training.evaluate --model runs/models/tiny --split phrasing

Decoding is that of training (greedy, blocks of 32 or the model's own, a canvas of 128 tokens),
independent of the package's loop. `--functions 200` adds Python functions, counted right where they
are written as the generator writes them. `--strangers` names a file of problems that were written
by hand and without the generator. `--typed` asks as people type: without the last mark, a sentence
a line, among other words. `--show 3` prints the first problems with their answers.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from dlmdecode.evals.arithmetic import LARGEST, SPLITS, STEPS, Problem, final_answer, problem
from dlmdecode.evals.functions import exercise
from dlmdecode.evals.stories.typed import typed
from dlmdecode.models import loading
from dlmdecode.models.config import Config
from dlmdecode.models.families import find_family
from dlmdecode.models.sdar import SDAR
from training import ar, block, dlm
from training.loop import until

MODELS = Path(loading.__file__).parent
STRANGERS = Path(__file__).parent.parent / "tests" / "strangers.jsonl"
Answer = Callable[[list[str]], list[str]]


def answerer(name_or_path: str) -> Answer:
    """A function from questions to texts, for a folder or an embedded name of either kind."""
    folder = MODELS / name_or_path if (MODELS / name_or_path).is_dir() else Path(name_or_path)
    tokenizer = loading.load_tokenizer(folder)
    end = tokenizer.eos_token_id
    kind = find_family(Config.read(folder / "config.json"))
    if kind is SDAR:
        blockwise = block.load(folder)
        decode = lambda questions: block.decode(blockwise, questions)  # noqa: E731
    elif kind is not None:
        diffusion = loading.load(folder)
        decode = lambda questions: dlm.decode(diffusion, questions)  # noqa: E731
    else:
        causal = AutoModelForCausalLM.from_pretrained(folder)
        decode = lambda questions: ar.decode(causal, questions, end)  # noqa: E731

    @torch.inference_mode()
    def answer(questions: list[str]) -> list[str]:
        written = decode(tokenizer(questions).input_ids)
        return [until(tokenizer.decode(tokens), tokenizer.eos_token) for tokens in written]

    return answer


def grade(answer: Answer, problems: list[Problem], batch: int) -> list[tuple[Problem, str, bool]]:
    """Each problem with the text that the model wrote and whether its final answer is right."""
    graded = []
    for first in tqdm(range(0, len(problems), batch), unit="batch"):
        part = problems[first : first + batch]
        for p, text in zip(part, answer([p.question for p in part]), strict=True):
            graded.append((p, text, final_answer(text) == p.answer))
    return graded


def strangers(file: Path) -> list[Problem]:
    """Problems from lines of JSON with `question` and `answer`; how they are solved is not told."""
    told = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Problem(one["question"], "", int(one["answer"]), "", 0) for one in told]


def as_typed(problems: list[Problem]) -> list[Problem]:
    """The same problems, each in a way of its own."""
    ways = map(random.Random, range(len(problems)))
    pairs = zip(problems, ways, strict=True)
    return [replace(p, question=typed(p.question, way)) for p, way in pairs]


def report(name: str, graded: list[tuple[Problem, str, bool]], show: int) -> None:
    """Print the first answers and the share that is right, overall and by number of steps."""
    for p, text, right in graded[:show]:
        print(f"{p.question}\n  {'right' if right else 'WRONG'}:{text}")
    for steps in STEPS:
        marks = [right for p, _, right in graded if p.steps == steps]
        if marks:
            print(f"{steps} steps: {sum(marks) / len(marks):.3f} of {len(marks)}")
    marks = [right for *_, right in graded]
    print(f"{name}: {sum(marks) / len(marks):.3f} of {len(marks)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="embedded name or folder")
    parser.add_argument("--n", type=int, default=1000, help="number of problems")
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="functions as well")
    parser.add_argument("--split", default="heldout", choices=SPLITS)
    parser.add_argument("--strangers", type=Path, default=STRANGERS, metavar="FILE")
    parser.add_argument("--typed", action="store_true", help="questions as people type them")
    parser.add_argument("--largest", type=int, default=LARGEST, help="largest number")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--show", type=int, default=0, metavar="K")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    seeds = range(arguments.n)
    problems = [problem(s, arguments.split, largest=arguments.largest) for s in seeds]
    others = strangers(arguments.strangers)
    if arguments.typed:
        problems, others = as_typed(problems), as_typed(others)
    answer = answerer(arguments.model)
    report("all", grade(answer, problems, arguments.batch), arguments.show)
    report("strangers", grade(answer, others, arguments.batch), arguments.show)
    exercises = [exercise(seed, arguments.split) for seed in range(arguments.functions)]
    if exercises:
        bodies = answer([one.question for one in exercises])
        same = sum(body == one.solution for body, one in zip(bodies, exercises, strict=True))
        print(f"functions: {same / len(exercises):.3f} of {len(exercises)}")


if __name__ == "__main__":
    main()
