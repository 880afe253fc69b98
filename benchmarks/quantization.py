"""What packing the weights costs: logits, accuracy and bytes of the embedded models, as a table.

    OMP_NUM_THREADS=1 python benchmarks/quantization.py --output benchmarks/results/quantization.md

Accuracy is that of held-out arithmetic problems; p is McNemar's, against the float32 model on the
same problems. Logits are compared where a text is decided, on the float32 model's own texts: of a
diffusion model with each second token of the text masked, of a causal one after each token. The
error is the length of the difference over that of the float32 logits, KL is from the float32
distribution to the other, in nats, and "same" is how often both have the same best token. Of
bfloat16, in which int4 runs, the logits are compared only. A model's lines are printed when done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlmdecode import generate, load
from dlmdecode.evals.arithmetic_task import Arithmetic
from dlmdecode.evals.statistics import interval, paired
from dlmdecode.models.loading import EMBEDDED
from dlmdecode.speculation import load_verifier

NEW_TOKENS, COMPARED = 128, 64  # of a text; texts whose logits are compared
WEIGHTS = {  # what a line calls them: dtype, packed how
    "float32": ("float32", None),
    "int8": ("float32", "int8"),
    "bfloat16": ("bfloat16", None),
    "int4": ("bfloat16", "int4"),
}
HEAD = [
    "| model | weights | MiB | logits' error | KL | same | accuracy [95 % interval] | p |",
    "|---|---|---|---|---|---|---|---|",
]


@dataclass(frozen=True)
class Subject:
    """A model as the table sees it.

    Attributes:
        network: what has the weights.
        left: linear layers of the blocks that int4 left as they were.
        texts: what it answers to each question.
        decide: logits (L, V) where a text of L tokens behind a prompt is decided.
    """

    network: nn.Module
    left: int
    texts: Callable[[list[str]], list[str]]
    decide: Callable[[str, str], Tensor]
    tokenizer: Any


def diffusion(name: str, sampler: str, batch_size: int, dtype: str, kind: str | None) -> Subject:
    model: Any = load(name, "cpu", dtype, quantize=kind)

    def texts(questions: list[str]) -> list[str]:
        found: list[str] = []
        for i in range(0, len(questions), batch_size):
            some = questions[i : i + batch_size]
            found += generate(model, some, sampler, max_new_tokens=NEW_TOKENS).texts or []
        return found

    def decide(question: str, text: str) -> Tensor:
        prompt, answer = (model.tokenizer(one)["input_ids"] for one in (question, text))
        ids = torch.tensor(prompt + answer)
        masked = torch.arange(len(prompt), len(ids), 2)
        ids[masked] = model.mask_id
        return model(ids[None])[0, masked - model.shift]

    left = len(model.quantization.left) if model.quantization else 0
    return Subject(model, left, texts, decide, model.tokenizer)


def causal(name: str, dtype: str, kind: str | None) -> Subject:
    verifier = load_verifier(name, "cpu", dtype, quantize=kind)

    def texts(questions: list[str]) -> list[str]:
        return [(verifier.generate(one, NEW_TOKENS).texts or [""])[0] for one in questions]

    def decide(question: str, text: str) -> Tensor:
        prompt, answer = (verifier.tokenizer(one)["input_ids"] for one in (question, text))
        return verifier.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]

    return Subject(verifier.model, 0, texts, decide, verifier.tokenizer)


def size(network: nn.Module) -> int:
    """Bytes of all weights, packed ones as they are kept."""
    total = 0
    for value in network.parameters():
        packed = hasattr(value.data, "__tensor_flatten__")  # torchao's subclasses have parts
        parts = value.data.__tensor_flatten__()[0] if packed else ()
        total += sum(getattr(value.data, part).nbytes for part in parts) if packed else value.nbytes
    return total


@torch.inference_mode()
def drift(exact: Subject, packed: Subject, pairs: list[tuple[str, str]]) -> tuple[float, ...]:
    """Error, KL and share of equal best tokens, over all positions that are decided."""
    both = [torch.cat([one.decide(*pair) for pair in pairs]).float() for one in (exact, packed)]
    own, other = both
    log_p, log_q = own.log_softmax(-1), other.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    same = (own.argmax(-1) == other.argmax(-1)).float().mean()
    return float((other - own).norm() / own.norm()), float(kl), float(same)


def rows(name: str, make: Callable[[str, str | None], Subject], task: Arithmetic) -> list[str]:
    """The table's lines of one model."""
    questions = [str(task.prompt(i)) for i in range(len(task))]
    exact, lines = make(*WEIGHTS["float32"]), []
    own = exact.texts(questions)
    right = judge(task, own)
    pairs = [pair for pair in zip(questions, own, strict=True) if pair[1]][:COMPARED]
    for label, how in WEIGHTS.items():
        subject = exact if label == "float32" else make(*how)
        numbers, verdicts = "| | ", right
        if subject is not exact:
            error, kl, same = drift(exact, subject, pairs)
            numbers = f"{error:.2%} | {kl:.2g} | {same:.2%}"
        found, p = "", ""
        if label != "bfloat16":
            verdicts = right if subject is exact else judge(task, subject.texts(questions))
            low, high = interval(sum(verdicts), len(verdicts))
            found = f"{sum(verdicts) / len(verdicts):.1%} [{low:.1%}, {high:.1%}]"
            p = f"{paired(right, verdicts).p:.2g}" if subject is not exact else ""
        left = f", {subject.left} layers left" if subject.left else ""
        mib = f"{size(subject.network) / 2**20:.1f}"
        lines.append(f"| `{name}` | {label}{left} | {mib} | {numbers} | {found} | {p} |")
        print(lines[-1], flush=True)
    return lines


def judge(task: Arithmetic, texts: list[str]) -> list[bool]:
    return [task.score(i, text)["correct"] for i, text in enumerate(texts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--limit", type=int, default=200, help="problems (200)")
    add("--sampler", default="threshold", help="of the diffusion models (threshold)")
    add("--batch-size", type=int, default=16)
    models = [*EMBEDDED, "tiny-ar"]
    add("--models", nargs="+", choices=models, default=models, help="all if not given")
    add("--output", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    task = Arithmetic(arguments.limit)
    lines = [f"{len(task)} held-out problems, `{arguments.sampler}`", "", *HEAD]
    for name in arguments.models:
        how = (name, arguments.sampler, arguments.batch_size)
        make = partial(diffusion, *how) if name in EMBEDDED else partial(causal, name)
        lines += rows(name, make, task)
    text = "\n".join(lines)
    print(f"\n{text}")
    if arguments.output is not None:
        arguments.output.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
