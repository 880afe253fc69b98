"""Runs a recorded case on our loop and compares tokens and number of forwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dlmdecode
from dlmdecode.call import forward_of
from dlmdecode.decoding.canvas import Canvas
from dlmdecode.decoding.guidance import Guided
from dlmdecode.decoding.loop import denoise
from dlmdecode.decoding.parts import Revision
from dlmdecode.decoding.sampler import Sampler
from dlmdecode.settings import Settings

Case = dict[str, Any]


@dataclass
class Setup:
    """How to decode a case: the library's recipe, and the quirks of the code that recorded it."""

    sampler: Sampler
    length: int
    cache: str = "none"
    cfg_scale: float = 0.0
    guided: type[Guided] = Guided
    dtype: torch.dtype = torch.float32
    leaf: Callable[[Any], Any] | None = None  # replaces the cache policy
    quirks: Callable[[Any], tuple[Revision, ...]] = lambda forward: ()
    lockstep: bool = False  # rows of a batch wait for each other at every block's end
    block_of: Callable[[Canvas], Tensor] = lambda rows: rows.lo - rows.start  # where they wait
    prefill: int = 0  # calls of a batch in lockstep before its first step
    cut: bool = False  # the output ends where the text was cut
    suffix: int | None = None
    suffix_tail: int = 0


@dataclass
class Result:
    id: str
    method: str
    verdict: str  # "matched", "deliberate" or "mismatched"
    detail: str = ""


def read_cases(folder: Path, method: str | None = None) -> Iterator[Case]:
    """Cases of `folder`/cases/*.jsonl (or `folder`/*.jsonl), in file order."""
    home = folder / "cases" if (folder / "cases").is_dir() else folder
    for path in sorted(home.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            if method is None or case["method"] == method:
                yield case


def prompts_of(case: Case) -> list[list[int]]:
    """The prompts without left padding."""
    batch = case["prompt"] if isinstance(case["prompt"][0], list) else [case["prompt"]]
    mask = case["extra"].get("attention_mask")
    if not isinstance(mask, list):
        return batch
    return [
        [i for i, keep in zip(ids, row, strict=False) if keep]
        for ids, row in zip(batch, mask, strict=True)
    ]


def expected_of(case: Case) -> list[list[int]]:
    """The outputs without left padding."""
    batched = isinstance(case["prompt"][0], list)
    outputs = case["output"] if batched else [case["output"]]
    prompts = case["prompt"] if batched else [case["prompt"]]
    kept = prompts_of(case)
    return [
        output[len(padded) - len(prompt) :]
        for output, padded, prompt in zip(outputs, prompts, kept, strict=True)
    ]


def decode(model: Any, case: Case, setup: Setup) -> tuple[list[list[int]], int]:
    """Tokens (prompt and text) of each row, and the number of model calls."""
    prompts = [torch.tensor(ids) for ids in prompts_of(case)]
    settings = Settings(cache=setup.cache, cfg_scale=setup.cfg_scale)
    leaf = setup.leaf(model) if setup.leaf else forward_of(model, setup.sampler, settings)
    forward = setup.guided(leaf, setup.cfg_scale) if setup.cfg_scale else leaf
    sampler = setup.sampler.merge(Sampler(revisions=setup.quirks(forward)))
    canvas = Canvas.of(
        prompts,
        setup.length,
        model.mask_id,
        model.eos_ids,
        suffix=setup.suffix,
        suffix_tail=setup.suffix_tail,
    )
    for opening in sampler.openings:
        opening(canvas)
    tokens, stop = canvas.tokens.clone(), canvas.stop.clone()
    per_block: dict[tuple[int, int], int] = {}  # (block, row) -> forwards
    for rows in denoise(forward, canvas, sampler, setup.dtype):
        tokens[rows.row], stop[rows.row] = rows.tokens, rows.stop
        for row, block in zip(rows.row.tolist(), setup.block_of(rows).tolist(), strict=True):
            per_block[block, row] = per_block.get((block, row), 0) + 1
    calls = leaf.work.calls
    if setup.lockstep:
        blocks = {block for block, _ in per_block}
        most = (max(n for (block, _), n in per_block.items() if block == b) for b in blocks)
        calls = setup.prefill + sum(most)
    ends = stop if setup.cut else canvas.stop
    return [row[:end].tolist() for row, end in zip(tokens, ends.tolist(), strict=True)], calls


class Runner:
    """Loads models once and judges cases."""

    def __init__(self, folder: Path):
        self.folder, self.models = folder, {}

    def model(self, name: str) -> Any:
        if name not in self.models:
            folder = self.folder / "models" / name
            if not folder.is_dir():  # cases alone: the checkpoints recorded here
                folder = Path(__file__).parent / "models" / name
            self.models[name] = dlmdecode.load(folder, device="cpu")
        return self.models[name]

    def judge(self, case: Case) -> Result:
        from diffuspec_quirks import JUDGES
        from methods import DELIBERATE, METHODS

        method = case["method"]
        if method in JUDGES:  # components of speculation, which run no decoding loop
            model = self.model(case["model"]) if case["model"] else None
            detail = JUDGES[method](case, self.folder, model)
            return Result(case["id"], method, "mismatched" if detail else "matched", detail)
        if method not in METHODS:
            return Result(case["id"], method, "deliberate", "not a method of this library")
        for applies, reason in DELIBERATE.get(method, ()):
            if applies(case):
                return Result(case["id"], method, "deliberate", reason)
        setup = METHODS[method](case, self.folder)
        tokens, calls = decode(self.model(case["model"]), case, setup)
        expected = expected_of(case)
        if tokens == expected and calls == case["nfe"]:
            return Result(case["id"], method, "matched")
        same = sum(
            a == b
            for x, y in zip(tokens, expected, strict=True)
            for a, b in zip(x, y, strict=False)
        )
        total = sum(map(len, expected))
        detail = f"{same}/{total} tokens equal, {calls} forwards instead of {case['nfe']}"
        return Result(case["id"], method, "mismatched", detail)
