"""Random settings of `speculate` against the verifier's own `generate`: every text is the same.

    python tests/fuzz_speculate.py                      # 20 settings of each drafter and shape
    python tests/fuzz_speculate.py --drafter suffix --shape tree --count 1 --seed 77  # one again
    python tests/fuzz_speculate.py --count 100 --log runs/fuzz.jsonl  # can be interrupted

A setting is a function of drafter, shape and number: a small random verifier (or the embedded one),
prompts, the drafter's options, draft lengths, EOS lists, stop strings, processors and criteria with
and without a memory, in the call or in the generation_config. Greedy, in float32, so that texts are
equal to the token.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import sys
import warnings
from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from fuzz_conditions import conditions
from fuzz_drafters import KINDS, MODELS, SHAPES, SIZE, shaped
from speculation_toys import byte_level

from dlmdecode.evals.arithmetic import problem
from dlmdecode.models.loading import EMBEDDED as DRAFTERS
from dlmdecode.speculation import (
    CausalDrafter,
    Drafter,
    LayerSkip,
    Verifier,
    load_verifier,
    speculate,
)
from dlmdecode.speculation.verifier.verifier import EMBEDDED

COMMON = dict(
    vocab_size=SIZE,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.3,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)
LONGROPE = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    short_factor=[1.0] * 4,
    long_factor=[4.0] * 4,
    original_max_position_embeddings=24,
)
PAIR = (DRAFTERS["tiny"] / "model.safetensors", EMBEDDED["tiny-ar"] / "model.safetensors")
FAMILIES = {
    "llama": ("Llama", {}),
    "llama-longrope": ("Llama", dict(rope_parameters=LONGROPE)),
    "qwen3": ("Qwen3", dict(head_dim=8)),
    "qwen2": ("Qwen2", dict(use_sliding_window=True, sliding_window=8, max_window_layers=1)),
    "mistral-sliding": ("Mistral", dict(sliding_window=8)),
    "gemma2": ("Gemma2", dict(head_dim=8, sliding_window=8, query_pre_attn_scalar=8)),
    "phi3-longrope": (
        "Phi3",
        dict(rope_parameters=LONGROPE, original_max_position_embeddings=24, pad_token_id=0),
    ),
    "gemma": ("Gemma", dict(head_dim=8)),
    "gpt2": ("GPT2", dict(n_embd=32, n_layer=2, n_head=4, n_positions=256)),
}


@cache
def verifier(family: str, seed: int = 0) -> Verifier:
    """A random model whose greedy text varies, or the embedded one."""
    if family == "embedded":
        return load_verifier("tiny-ar", device="cpu", dtype="float32")
    name, settings = FAMILIES[family]
    kept = ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id")
    common = {name: COMMON[name] for name in kept} if name == "GPT2" else COMMON
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**common | settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    return Verifier(model, byte_level(SIZE))


def drafter(kind: str, choice: random.Random, family: str, texts: list[list[int]]) -> Drafter:
    """A drafter with random options."""
    if kind == "causal":
        others = ["llama", "mistral-sliding", "phi3-longrope"]
        embedded = family == "embedded"
        small = verifier(family if embedded else choice.choice(others), choice.randrange(2))
        return CausalDrafter(small.model, small.tokenizer if embedded else None)
    if kind == "layerskip":
        tokenizer = verifier(family).tokenizer if family == "embedded" else None
        return LayerSkip(verifier(family).model, tokenizer, 1, choice.choice([0.0, 0.3, 0.8]))
    return KINDS[kind](choice, family, texts)


def plain(one: Verifier, prompts, length, options, fresh) -> list[list[int]]:
    """What transformers writes; `fresh` gives objects that nothing has used."""
    return [
        one.model.generate(
            ids[None],
            attention_mask=torch.ones_like(ids)[None],
            do_sample=False,
            max_new_tokens=length,
            tokenizer=one.tokenizer,
            **options,
            **fresh(),
        )[0].tolist()
        for ids in prompts
    ]


def setting(kind: str, shape: str, number: int) -> tuple[str, bool]:
    """Run one setting: its description, and whether speculation wrote every row as plain does."""
    choice = random.Random(f"{kind} {shape} {number}")
    families = [*FAMILIES, "embedded"] if all(file.is_file() for file in PAIR) else [*FAMILIES]
    family = choice.choice(families)
    one, length = verifier(family), choice.randint(1, 40)
    if family == "embedded":
        texts = [problem(choice.randrange(10**6)).question for _ in range(choice.randint(1, 2))]
        prompts = [torch.tensor(one.tokenizer(text)["input_ids"]) for text in texts]
    else:
        lengths = [choice.randint(1, 30) for _ in range(choice.randint(1, 3))]
        prompts = [torch.tensor([choice.randrange(SIZE) for _ in range(n)]) for n in lengths]
    kept = copy.deepcopy(one.model.generation_config)
    free = plain(one, prompts, 48, {"eos_token_id": None}, dict)
    try:
        name, how, options, fresh = conditions(choice, one, prompts, free)
        wanted = plain(one, prompts, length, options, fresh)
        drafts, search = shaped(drafter(kind, choice, family, free), shape, choice, free)
        draft_length = choice.choice(["adaptive", *range(1, 13)])
        common = {"max_new_tokens": length, "draft_length": draft_length}
        common["vocabulary"] = "auto" if family == "embedded" else "identity"
        found = [
            speculate(drafts, one, ids, **common, **search, **options, **fresh())
            for ids in (prompts if fresh() else [prompts])
        ]
    finally:
        one.model.generation_config = kept
    rows = [row for out in found for row in out.sequences.tolist()]
    same = all(row[: len(text)] == text for row, text in zip(rows, wanted, strict=True))
    new = [count for out in found for count in out.new_tokens]
    same = same and new == [len(t) - len(p) for t, p in zip(wanted, prompts, strict=True)]
    return f"{family}, drafts of {draft_length}, {name}, {how}", same


def case(kind: str, shape: str, number: int) -> dict[str, Any]:
    """One setting's line of the log."""
    text, same = setting(kind, shape, number)
    return {"drafter": kind, "shape": shape, "number": number, "setting": text, "same": same}


def logged(path: Path | None) -> list[dict[str, Any]]:
    """The lines of a log, all but one that an interrupted run has left unfinished."""
    lines = path.read_text().splitlines(keepends=True) if path and path.exists() else []
    if path and lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]))
    return [json.loads(line) for line in lines if line.endswith("\n")]


def name_of(line: dict[str, Any]) -> tuple[str, str, int]:
    return line["drafter"], line["shape"], line["number"]


def report(lines: list[dict[str, Any]], cases: list[tuple[str, str]]) -> int:
    """Print what differs and how much was tried; how many differ."""
    different = [line for line in lines if not line["same"]]
    for kind, shape, number in map(name_of, different):
        print(f"--drafter {kind} --shape {shape} --seed {number} --count 1: DIFFERENT")
    done = Counter(name_of(line)[:2] for line in lines)
    least, most = min(done[one] for one in cases), max(done[one] for one in cases)
    print(f"{least} to {most} of each of {len(cases)}, {len(different)} of {len(lines)} differ")
    families = Counter(line["setting"].split(",")[0] for line in lines)
    print(", ".join(f"{name} {count}" for name, count in sorted(families.items())))
    print(f"transformers {transformers.__version__}")
    return len(different)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--count", type=int, default=20, help="settings of each drafter and shape")
    add("--seed", type=int, default=0, help="number of the first setting")
    add("--drafter", nargs="+", default=[*KINDS, *MODELS], metavar="NAME")
    add("--shape", nargs="+", default=SHAPES, choices=SHAPES)
    add("--log", type=Path, help="file of a line for each setting; those in it are not run again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    cases = list(product(arguments.drafter, arguments.shape))
    numbers = range(arguments.seed, arguments.seed + arguments.count)
    wanted = [(*one, number) for number in numbers for one in cases]
    known = {name_of(line): line for line in logged(arguments.log)}
    for one in wanted:
        if one not in known:
            known[one] = case(*one)
            if arguments.log:
                with arguments.log.open("a") as log:
                    log.write(json.dumps(known[one]) + "\n")
    return int(report([known[one] for one in wanted], cases) > 0)


if __name__ == "__main__":
    sys.exit(main())
