"""What shapes a text in random settings: options, processors and criteria with a memory."""

import random

import torch
from fuzz_drafters import SIZE
from transformers import LogitsProcessor, StoppingCriteria, SynthIDTextWatermarkingConfig

from dlmdecode.speculation import Verifier


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
