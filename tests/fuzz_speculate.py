"""Random settings of `speculate` against the verifier's own `generate`: every text is the same.

    python tests/fuzz_speculate.py                      # 20 settings of each drafter and shape
    python tests/fuzz_speculate.py --drafter suffix --shape tree --count 1 --seed 77  # one again

A setting is a function of drafter, shape and number: a small random verifier (or the embedded one),
prompts, the drafter's options, draft lengths, EOS lists, stop strings, processors and criteria with
and without a memory, in the call or in the generation_config. Greedy, in float32, so that texts are
equal to the token.
"""

from __future__ import annotations

import argparse
import copy
import logging
import random
import sys
import warnings
from collections import Counter
from functools import cache
from itertools import product

import torch
import transformers
from fuzz_drafters import KINDS, MODELS, SHAPES, SIZE, shaped
from speculation_toys import byte_level
from transformers import LogitsProcessor, StoppingCriteria, SynthIDTextWatermarkingConfig

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


class Counting(LogitsProcessor):
    """Favours a token that depends on how often it was called: right for plain decoding only."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids, scores):
        self.calls += 1
        scores[:, (7 * self.calls + int(input_ids[0, -1])) % SIZE] += 3.0  # in place, as users do
        return scores


class Patience(StoppingCriteria):
    """Stops when it has seen so many even tokens."""

    def __init__(self, even: int):
        self.left = even

    def __call__(self, input_ids, scores, **kwargs):
        self.left -= int(input_ids[0, -1]) % 2 == 0
        return torch.full((len(input_ids),), self.left <= 0)


def processors(choice: random.Random, ids: list[int]) -> tuple[str, dict]:
    """One way to change scores, from the verifier's own options; `ids` are of its free text."""
    some = choice.sample(ids, 3)
    return choice.choice(
        [
            ("none", {}),
            ("repetition_penalty", {"repetition_penalty": choice.uniform(1.05, 2)}),
            ("encoder_repetition_penalty", {"encoder_repetition_penalty": 1.5}),
            ("no_repeat_ngram_size", {"no_repeat_ngram_size": choice.randint(1, 3)}),
            ("bad_words_ids", {"bad_words_ids": [[some[0]], [some[1], some[2]]]}),
            ("sequence_bias", {"sequence_bias": [[[some[0]], -4.0], [[some[1], some[2]], 3.0]]}),
            ("suppress_tokens", {"suppress_tokens": some}),
            ("begin_suppress_tokens", {"begin_suppress_tokens": [ids[0]]}),
            ("min_new_tokens", {"min_new_tokens": choice.randint(1, 12)}),
            ("forced_eos_token_id", {"forced_eos_token_id": some[0]}),
            ("renormalize_logits", {"renormalize_logits": True}),
            ("guidance_scale", {"guidance_scale": choice.choice([0.5, 1.5, 3.0])}),
            (
                "negative prompt",
                {"guidance_scale": 2.0, "negative_prompt_ids": torch.tensor([some])},
            ),
            (
                "SynthID",
                {
                    "watermarking_config": SynthIDTextWatermarkingConfig(
                        keys=[11, 13, 17, 19, 23], ngram_len=3
                    )
                },
            ),
            ("exponential decay", {"exponential_decay_length_penalty": (4, 1.2)}),
        ]
    )


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


def conditions(choice: random.Random, one: Verifier, prompts, free):
    """What shapes the text: its name, where it is given, the options, and objects with a memory."""
    ids = [token for text, ids in zip(free, prompts, strict=True) for token in text[len(ids) :]]
    name, options = processors(choice, ids)
    options["eos_token_id"] = choice.sample(ids, choice.randint(0, 3)) or None
    if options["eos_token_id"] is None and name == "exponential decay":
        options["eos_token_id"] = ids[-1:]
    if choice.random() < 0.3:
        whole = [one.tokenizer.decode(token) for token in choice.sample(ids, 4)]
        pieces = [piece for piece in whole if piece.isascii() and piece.isprintable()]
        if pieces:
            options["stop_strings"] = pieces[: choice.randint(1, 2)]
            name += " and stop strings"
    how = "in the call"
    if choice.random() < 0.3 and "negative_prompt_ids" not in options:
        one.model.generation_config.update(**options)
        how, options = "in the generation_config", {}
    memory = choice.choice(["none", "none", "processor", "criterion", "both"])
    even = choice.randint(2, 12)

    def fresh() -> dict:
        found = {}
        if memory in ("processor", "both"):
            found["logits_processor"] = [Counting()]
        if memory in ("criterion", "both"):
            found["stopping_criteria"] = [Patience(even)]
        return found

    return f"{name}, {memory} with a memory", how, options, fresh


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--count", type=int, default=20, help="settings of each drafter and shape")
    add("--seed", type=int, default=0, help="number of the first setting")
    add("--drafter", nargs="+", default=[*KINDS, *MODELS], metavar="NAME")
    add("--shape", nargs="+", default=SHAPES, choices=SHAPES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    families, different = Counter(), 0
    cases = list(product(arguments.drafter, arguments.shape))
    for number in range(arguments.seed, arguments.seed + arguments.count):
        for kind, shape in cases:
            text, same = setting(kind, shape, number)
            families[text.split(",")[0]] += 1
            different += not same
            if not same:
                print(f"--drafter {kind} --shape {shape} --seed {number}: {text}: DIFFERENT")
        done = number + 1 - arguments.seed
        print(f"{done} of each of {len(cases)}, {different} differ", flush=True)
    print(", ".join(f"{name} {count}" for name, count in sorted(families.items())))
    print(f"transformers {transformers.__version__}")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
