"""Texts of a benchmark as token ids: special tokens once, context and continuation apart.

One rule for every kind of request. Before a text stands what the tokenizer puts there (or a BOS, or
nothing, as `add_bos_token` says), but nothing where the text brings its own: it begins with a
special token, or a chat template rendered it. Nothing is put behind a text.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

from dlmdecode.checks import require
from dlmdecode.evals.task import cut
from dlmdecode.prompts.chat import check_text, control_tokens, plain_ids
from dlmdecode.prompts.chat_template import render

Ids = list[int]


class Encoder:
    """Text to ids for a model.

    Attributes:
        start: the one token that stands for no text at all, BOS or else EOS.

    Raises `ValueError` where a BOS is asked for and the tokenizer has none.
    """

    def __init__(self, model: Any, add_bos_token: bool | None = None):
        self.tokenizer, self.mask_id = model.tokenizer, model.mask_id
        self.bos_id: int | None = self.tokenizer.bos_token_id
        require(
            not add_bos_token or self.bos_id is not None,
            "add_bos_token",
            add_bos_token,
            "the tokenizer has no BOS token; leave it out",
        )
        self.add_bos_token = add_bos_token
        self.start = [model.eos_ids[0] if self.bos_id is None else self.bos_id]
        self.needs_start = model.shift > 0  # no state predicts the first token
        self.specials = tuple(control_tokens(self.tokenizer))
        self.lead = self.leading()
        self.rendered: set[str] = set()  # the texts that the chat template made
        self.renderer = self.tokenizer

    def leading(self) -> Ids:
        """What the tokenizer by itself puts before a text."""
        whole, plain = self.tokenizer("a")["input_ids"], self.plain("a")
        fits = (k for k in range(len(whole)) if whole[k : k + len(plain)] == plain)
        return whole[: next(fits, 0)]

    def plain(self, text: str) -> Ids:
        """Ids of `text` alone; the mask token spelled out in it is text like any other."""
        quiet = {"add_special_tokens": False, "verbose": False}  # long texts are shortened later
        ids = self.tokenizer(check_text(text), **quiet)["input_ids"]
        if self.mask_id not in ids:
            return ids
        spelled = plain_ids(self.tokenizer.convert_ids_to_tokens(self.mask_id), self.tokenizer)
        return [one for id in ids for one in (spelled if id == self.mask_id else [id])]

    def before(self, text: str, rendered: bool) -> Ids:
        """The special tokens to put before `text`."""
        has_bos = self.bos_id is not None and text.startswith(self.tokenizer.bos_token)
        if has_bos or self.add_bos_token is False:
            return []
        if self.add_bos_token:
            return self.start
        return [] if rendered or text.startswith(self.specials) else self.lead

    def prompt(self, text: str) -> Ids:
        """Ids to generate after; never empty."""
        return self.before(text, text in self.rendered) + self.plain(text) or self.start

    def pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Ids that condition, and ids to score.

        The two texts are tokenized as one, so that the model sees its own tokens. What is scored
        begins with the first token that `context` alone does not have: a token that straddles the
        border is scored whole. Blanks at the end of `context` belong to the continuation.
        """
        body = context.rstrip()
        whole = context + continuation
        before = self.before(whole, context in self.rendered)
        ids, alone = before + self.plain(whole), before + self.plain(body)
        pairs = zip(ids, alone, strict=False)
        split = next((k for k, (one, other) in enumerate(pairs) if one != other), None)
        split = min(len(ids), len(alone)) if split is None else split
        if split == 0 and ids[:1] == [self.bos_id]:
            split = 1
        if split == 0 and self.needs_start:
            return self.start, ids
        return ids[:split], ids[split:]

    def shorten(self, ids: Ids, room: int) -> Ids:
        """The last `room` ids; a BOS at the beginning stays."""
        if len(ids) <= room:
            return ids
        kept = 1 if ids[0] == self.bos_id and room > 1 else 0
        return ids[:kept] + ids[len(ids) - room + kept :]

    def decode(self, ids: Ids, stops: Sequence[str]) -> str:
        """The text of generated `ids` up to the first stop, which may be a special token."""
        special = [stop for stop in stops if stop in self.specials]
        ends = self.tokenizer.convert_tokens_to_ids(special)
        ids = list(itertools.takewhile(lambda id: id not in ends, ids))
        return cut(self.tokenizer.decode(ids, skip_special_tokens=True), stops)

    def choose_template(self, name: bool | str) -> str:
        """The source of the chat template to `render` with: the only one, or that of a name.

        Raises `ValueError` where the tokenizer has none, or none of that name.
        """
        if name is False:
            return ""
        known = self.tokenizer.chat_template
        require(bool(known), "apply_chat_template", name, "the tokenizer has no chat template")
        if name is True:
            return self.tokenizer.get_chat_template()
        names = list(known) if isinstance(known, dict) else []
        has = ", ".join(names) or "one template, without a name"
        require(name in names, "apply_chat_template", name, f"the tokenizer has {has}")
        self.renderer = copy.copy(self.tokenizer)
        self.renderer.chat_template = known[name]
        return known[name]

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        """A conversation as text; where no prompt follows, its last message is left open."""
        text = render(self.renderer, messages, add_generation_prompt)
        self.rendered.add(text)
        return text
