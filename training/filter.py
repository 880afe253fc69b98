"""Train Learn2PD's acceptance filter (arXiv 2509.25188) from a model's own traces, in minutes.

    python -m training.filter --model tiny --problems 300 --output runs/filter.safetensors

Vanilla decoding (one token per step) gives the final text of each problem. The same problems are
then decoded greedily in parallel: at every step all proposals that equal the final text are
committed, and what the model's confidences were is recorded with which proposals were right. The
filter learns to tell that from the confidences of the block alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import dlmdecode
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.parts import Selection
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.evals.arithmetic import problem
from dlmdecode.samplers.learn2pd_filter import AcceptanceFilter


@dataclass(frozen=True, eq=False)
class FollowFinalText(Selection):
    """Commits the proposals that equal the final text (B, L), and records what a filter would see.

    Records (confidences of the block, which of them were right, which were masked), each (n, K).
    """

    reads_committed = True
    final: Tensor
    width: int
    records: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, canvas: Canvas) -> Tensor:
        right = canvas.proposal.token == self.final[canvas.row]
        at = (canvas.lo[:, None] + torch.arange(self.width)).clamp(max=canvas.tokens.shape[1] - 1)
        inside = canvas.lo[:, None] + torch.arange(self.width) < canvas.hi[:, None]
        seen = canvas.proposal.prob.gather(1, at).masked_fill(~inside, 0).float()
        masked = canvas.open.gather(1, at) & inside
        self.records.append((seen, right.gather(1, at), masked))
        return right & canvas.open


def traces(model: Any, questions: list[str], block_length: int, length: int) -> list[Any]:
    """What `FollowFinalText` records on these questions."""
    shape = {"max_new_tokens": length, "block_length": block_length, "eos": "ignore"}
    final = dlmdecode.generate(model, questions, "vanilla", **shape).sequences
    rule = FollowFinalText(final, block_length)
    dlmdecode.generate(model, questions, Sampler(select=rule), **shape)
    return rule.records


def fit(records: list[Any], width: int, epochs: int, seed: int = 0) -> AcceptanceFilter:
    """A filter fitted to the masked positions of all records, full batch."""
    seen, right, masked = (torch.cat(parts) for parts in zip(*records, strict=True))
    torch.manual_seed(seed)
    model = AcceptanceFilter(width, width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in tqdm(range(epochs), unit="epoch", disable=None):
        loss = F.binary_cross_entropy_with_logits(model(seen)[masked], right[masked].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def quality(model: AcceptanceFilter, records: list[Any], threshold: float) -> tuple[float, float]:
    """Share of accepted proposals that were right, and of right ones that are accepted."""
    seen, right, masked = (torch.cat(parts) for parts in zip(*records, strict=True))
    accepted = (model(seen).sigmoid() > threshold) & masked
    hits = (accepted & right).sum()
    return float(hits / accepted.sum().clamp(min=1)), float(
        hits / (right & masked).sum().clamp(min=1)
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--block-length", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--threshold", type=float, default=0.96, help="for the printed quality")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    model = dlmdecode.load(arguments.model, device="cpu")
    questions = [problem(seed, split="calibration").question for seed in range(arguments.problems)]
    groups = range(0, len(questions), arguments.batch_size)
    batches = [questions[i : i + arguments.batch_size] for i in groups]
    shape = (arguments.block_length, arguments.max_new_tokens)
    recorded = [traces(model, batch, *shape) for batch in tqdm(batches, unit="batch", disable=None)]
    held = max(len(recorded) // 10, 1)
    train = [record for batch in recorded[held:] or recorded for record in batch]
    test = [record for batch in recorded[:held] for record in batch]
    filter = fit(train, arguments.block_length, arguments.epochs)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    filter.save(arguments.output)
    precision, recall = quality(filter, test, arguments.threshold)
    print(f"accepted and right {precision:.3f}, right and accepted {recall:.3f} on held-out traces")


if __name__ == "__main__":
    main()
