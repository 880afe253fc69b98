"""Random settings of `speculate` against the verifier's own `generate`: every text is the same.

    python tests/fuzz_speculate.py                      # 500 settings
    python tests/fuzz_speculate.py --count 1 --seed 77  # one of them again

A setting is a function of its number: a small random verifier (or the embedded one), prompts, a
drafter, draft lengths, EOS lists, stop strings, processors and criteria with and without a memory,
in the call or in the generation_config. Greedy, in float32, so that texts are equal to the token.
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

import torch
import transformers
from speculation_toys import Recalling, byte_level, micro
from transformers import LogitsProcessor, StoppingCriteria, SynthIDTextWatermarkingConfig

import dlmdecode
from dlmdecode.evals.arithmetic import problem
from dlmdecode.models.loading import EMBEDDED as DRAFTERS
from dlmdecode.speculation import (
    CausalDrafter,
    Draft,
    Drafter,
    PromptLookup,
    Verifier,
    load_verifier,
    speculate,
)
from dlmdecode.speculation.drafters import resolve_drafter
from dlmdecode.speculation.verifier.verifier import EMBEDDED

SIZE = 300
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
NAMED = ("suffix", "recycling,nodes=12", "ngram,nodes=9", "logitspec,nodes=12", "hierarchy")
NAMED += ("fused,first=ngram;nodes=8,second=suffix", "switch,drafter=hierarchy,at_least=3")
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


class Guessing(Drafter):
    """Random tokens, EOS ids of the verifier among them."""

    def __init__(self, seed: int):
        self.seed = seed

    def draft(self, prefix, length):
        choice = random.Random(f"{self.seed} {prefix[-3:]}")
        return [choice.randrange(SIZE) for _ in range(choice.randint(0, length))]


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


def drafter(choice: random.Random, family: str, texts: list[list[int]]) -> tuple[str, object]:
    kinds = ["recalling", "recalling", "lookup", "guessing", "causal", "diffusion"]
    if family == "embedded":
        kinds = ["lookup", "diffusion", "diffusion"]
    kind = choice.choice(kinds)
    if choice.random() < 0.4:
        kind = choice.choice(NAMED)
        return kind, resolve_drafter(kind, 1, 15)
    if choice.random() < 0.3 and family != "embedded":
        return "branching", Branching(choice.randrange(100), texts)
    if kind == "recalling":
        return kind, ByPosition(texts, choice.choice([0, 2, 3, 5, 9]))
    if kind == "lookup":
        return kind, PromptLookup(choice.randint(1, 3))
    if kind == "guessing":
        return kind, Guessing(choice.randrange(100))
    if kind == "causal":
        other = choice.choice(["llama", "mistral-sliding", "phi3-longrope"])
        return kind, CausalDrafter(verifier(other, choice.randrange(2)).model)
    return kind, load_drafter(family)


class Branching(Drafter):
    """Trees of random branches, as often as not off the right text."""

    def __init__(self, seed: int, texts: list[list[int]]):
        self.seed, self.texts = seed, texts

    def draft(self, prefix, length):
        choice = random.Random(f"{self.seed} {prefix[-3:]}")
        paths = []
        for text in [*self.texts, prefix]:
            right = text[len(prefix) : len(prefix) + choice.randint(0, length)]
            wrong = [choice.randrange(SIZE) for _ in range(choice.randint(0, 3))]
            paths.append((right + wrong)[:length])
        choice.shuffle(paths)
        return Draft.joined(paths)


class ByPosition(Recalling):
    """`Recalling` that goes on where the text has become another one."""

    def draft(self, prefix, length):
        known = (text for text in self.texts if text[:1] == prefix[:1])
        text = next(known, self.texts[0])
        drafted = text[len(prefix) : len(prefix) + length]
        wrong = [self.wrong and (len(prefix) + i) % self.wrong == 0 for i in range(len(drafted))]
        return [(t + bad) % SIZE for t, bad in zip(drafted, wrong, strict=True)]


@cache
def load_drafter(family: str):
    return dlmdecode.load("tiny", device="cpu") if family == "embedded" else micro("dream")


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


def setting(number: int) -> tuple[str, bool]:
    """Run one setting: its description, and whether speculation wrote every row as plain does."""
    choice = random.Random(number)
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
        kind, drafts = drafter(choice, family, free)
        search = (
            {"path_search": choice.choice(["cps", "argmax", "tree"])} if kind == "diffusion" else {}
        )
        draft_length = choice.choice(["adaptive", *range(1, 13)])
        found = [
            speculate(
                drafts,
                one,
                ids,
                max_new_tokens=length,
                draft_length=draft_length,
                vocabulary="auto" if family == "embedded" else "identity",
                **search,
                **options,
                **fresh(),
            )
            for ids in (prompts if fresh() else [prompts])
        ]
    finally:
        one.model.generation_config = kept
    rows = [row for out in found for row in out.sequences.tolist()]
    same = all(row[: len(text)] == text for row, text in zip(rows, wanted, strict=True))
    new = [count for out in found for count in out.new_tokens]
    same = same and new == [len(t) - len(p) for t, p in zip(wanted, prompts, strict=True)]
    return f"{family}, {kind} drafts of {draft_length}, {name}, {how}", same


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
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="number of the first setting")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    families, different = Counter(), 0
    for number in range(arguments.seed, arguments.seed + arguments.count):
        text, same = setting(number)
        families[text.split(",")[0]] += 1
        different += not same
        if not same or arguments.count == 1:
            print(f"{number}: {text}: {'same' if same else 'DIFFERENT'}", flush=True)
    print(", ".join(f"{name} {count}" for name, count in sorted(families.items())))
    version = transformers.__version__
    print(f"{arguments.count} settings, {different} differ (transformers {version})")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
