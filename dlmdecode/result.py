"""What decoding gives back: sequences, texts, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dlmdecode.decoding.forward import Cost
from dlmdecode.decoding.trace import Trace
from dlmdecode.models.protocol import Denoiser
from dlmdecode.parts.remasking import before_match
from dlmdecode.presets import Preset


@dataclass
class Generation:
    """What `generate` returns, and of a single prompt an engine.

    Attributes:
        sequences: (B, P+G) int64, each row prompt then text, right-padded with EOS.
        texts: the generated text of each row without prompt and special tokens, cut before a stop
            string; None without a tokenizer. With `num_return_sequences` the rows of a prompt
            follow each other. Of an infilling all of it, given and written.
        nfe: forwards each row took part in (number of function evaluations).
        new_tokens: tokens of each row's text, up to but without its first EOS; those of a stop
            string count.
        stats: totals: nfe (model calls), forward_rows and forward_positions (rows and token
            positions over all calls), new_tokens, seconds, tokens_per_forward (new tokens over the
            sum of the rows' nfe), tokens_per_second. Of an engine's prompt, forward_rows,
            forward_positions and seconds are its share of the steps it took part in: a step is
            shared evenly by the prompts in flight.
        trace: what was committed when; None unless asked for.
        prompt_lengths: tokens of each prompt; of an infilling those before the first gap.
        gaps: the text of each gap of each row; None where there is none, or no tokenizer.
        preset: what `sampler="auto"` stood for, a `Preset`; None where it was not asked for.
    """

    sequences: Tensor
    texts: list[str] | None
    nfe: list[int]
    new_tokens: list[int]
    stats: dict[str, float]
    trace: Trace | None = None
    prompt_lengths: list[int] = field(default_factory=list)
    gaps: list[list[str]] | None = None
    preset: Preset | None = None

    @classmethod
    def of(
        cls, model: Denoiser, row: Tensor, start: int, nfe: int, cost: Cost, stops: Sequence[str]
    ) -> Generation:
        """That of one row (P+G,) whose text begins at `start` and ends before one of `stops`."""
        text = row[start:]
        end = first_eos(text, model.eos_ids)
        texts = None
        if model.tokenizer is not None:
            whole = model.tokenizer.decode(text[:end], skip_special_tokens=True)
            texts = [before_match(whole, stops)]
        return cls(row[None], texts, [nfe], [end], cost.stats(end, nfe), None, [start])

    @classmethod
    def filled(
        cls, model: Denoiser, row: Tensor, start: int, gaps: Tensor, nfe: int, cost: Cost
    ) -> Generation:
        """That of one row (T,) whose gaps are numbered from 1 in `gaps` (T,), 0 elsewhere."""
        kept, counts, texts = torch.ones_like(row, dtype=torch.bool), [], list[str]()
        for gap in range(1, int(gaps.max()) + 1):
            at = (gaps == gap).nonzero()[:, 0]
            counts.append(first_eos(row[at], model.eos_ids))
            kept[at[counts[-1] :]] = False
            if model.tokenizer is not None:
                written = row[at[: counts[-1]]]
                texts.append(model.tokenizer.decode(written, skip_special_tokens=True))
        stats = cost.stats(sum(counts), nfe)
        if model.tokenizer is None:
            return cls(row[None], None, [nfe], [sum(counts)], stats, None, [start])
        whole = model.tokenizer.decode(row[kept], skip_special_tokens=True)
        return cls(row[None], [whole], [nfe], [sum(counts)], stats, None, [start], [texts])

    @classmethod
    def join(cls, model: Denoiser, rows: Sequence[Generation], cost: Cost) -> Generation:
        """Several of one row as one, which cost so much together."""
        every = [row.sequences[0] for row in rows]
        sequences = pad_sequence(every, batch_first=True, padding_value=model.eos_ids[0])
        nfe, new_tokens, starts = (
            [number for row in rows for number in getattr(row, name)]
            for name in ("nfe", "new_tokens", "prompt_lengths")
        )
        texts = [text for row in rows for text in row.texts or ()]
        known = None if model.tokenizer is None else texts
        stats = cost.stats(sum(new_tokens), sum(nfe))
        gaps = [texts for row in rows for texts in row.gaps or ()] or None
        return cls(sequences, known, nfe, new_tokens, stats, None, starts, gaps)


def first_eos(ids: Tensor, eos_ids: tuple[int, ...]) -> int:
    """Tokens before the first EOS of `ids` (n,)."""
    where = torch.isin(ids, torch.tensor(eos_ids, device=ids.device)).nonzero()
    return int(where[0]) if len(where) else len(ids)
