"""Several texts for a prompt and one that is kept: by votes, or by the model's own likelihood.

Both call `generate` several times, and cost what these calls cost; `stats` and `nfe` of what comes
back are sums over all candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlmdecode.call import Call, resolve_model
from dlmdecode.checks import Count, Positive, conform, plain, require
from dlmdecode.generation import generate, stream
from dlmdecode.likelihood import Likelihood, Rows
from dlmdecode.models.protocol import Denoiser
from dlmdecode.result import Generation
from dlmdecode.settings import DEFAULT_SAMPLER

BLOCK_LENGTHS = (8, 16, 32, 64)
SHOWN = ("streamer", "on_step", "trace")  # options of `generate` that are none of `stream`
OTHERS = (*SHOWN, "attention_mask", "batch_size", "infill", "logits_processor")  # no settings


@dataclass
class Choice:
    """What `vote` and `best_of` return. Lists have an entry for each prompt.

    Attributes:
        texts: the texts that were kept.
        chosen: which of the candidates they are.
        candidates: all texts, in the order in which they were asked for.
        values: what each candidate was judged by: its answer, or its log-likelihood per token.
        nfe: forwards that all candidates of a prompt took part in.
        stats: totals over all calls, as `Generation.stats`, with new_tokens, tokens_per_forward and
            tokens_per_second of the texts that were kept; and scoring_rows, the rows of forwards
            that only looked at finished texts, which are among forward_rows.
    """

    texts: list[str]
    chosen: list[int]
    candidates: list[list[str]]
    values: list[list[Any]]
    nfe: list[int]
    stats: dict[str, float]


def whole(text: str) -> str:
    """The answer that a text is where nothing else is said: all of it."""
    return text.strip()


def vote(
    model: Any,
    prompt: Any,
    sampler: Any = DEFAULT_SAMPLER,
    *,
    block_lengths: Iterable[int] | None = None,
    num_samples: int = 1,
    answer: Callable[[str], Any] = whole,
    **options: Any,
) -> Choice:
    """Decode under several block lengths, and keep a text with the most frequent answer.

    Hidden semi-autoregressive experts (arXiv 2510.05040): each block length is another order of
    commits, and where they agree they are more often right. Of answers that are equally frequent
    the one that came first counts, by `block_lengths`.

    Args:
        model, prompt, sampler, options: as those of `generate`.
        block_lengths: one call of `generate` for each; None takes those of 8, 16, 32 and 64 that a
            text has room for.
        num_samples: texts under each of them; more than one needs a temperature.
        answer: what a text is counted as; None abstains. Where all abstain the first text is kept.

    Costs `len(block_lengths) * num_samples` times one text.

    Raises:
        ValueError: as `generate`; a single candidate; `block_length` among the options.
    """
    refuse_streamer(options)
    model = speaking(model)
    if block_lengths is None:
        most = length_of(model, sampler, options)
        block_lengths = [length for length in BLOCK_LENGTHS if length <= most] or [most]
    fix = "give at least two candidates, each block length once"
    several = isinstance(block_lengths, Iterable) and not isinstance(block_lengths, str)
    require(several, "block_lengths", block_lengths, fix)
    lengths = tuple(map(plain, block_lengths))
    several = len(lengths) * conform("num_samples", num_samples, Count) > 1
    require(several and len(set(lengths)) == len(lengths), "block_lengths", block_lengths, fix)
    require("block_length" not in options, "block_length", options.get("block_length"),
            "voting has several: give block_lengths")  # fmt: skip
    require(callable(answer), "answer", answer, "give a function (text) -> answer")
    options["num_return_sequences"] = num_samples
    steps = {name: value for name, value in options.items() if name not in SHOWN}
    for length in lengths:  # each is checked before the first is decoded
        stream(model, prompt, sampler, block_length=length, **steps)
    calls = [generate(model, prompt, sampler, block_length=n, **options) for n in lengths]

    def judge(rows: list[tuple[Generation, int]]) -> tuple[list[Any], int]:
        answers = [answer(text_of(out, i)) for out, i in rows]
        count = Counter(each for each in answers if each is not None)
        return answers, answers.index(count.most_common(1)[0][0]) if count else 0

    return choose(calls, num_samples, judge)


def best_of(
    model: Any,
    prompt: Any,
    sampler: Any = DEFAULT_SAMPLER,
    *,
    num_samples: int = 4,
    temperature: float = 0.7,
    num_masks: int = 32,
    **options: Any,
) -> Choice:
    """Draw several texts, and keep the one that the model itself finds likeliest.

    By the Monte Carlo bound of the log-likelihood (arXiv 2502.09992, eq. 6) per token, the first
    EOS among them. The same masks judge all candidates of one length.

    Args:
        model, prompt, sampler, temperature, options: as those of `generate`.
        num_samples: texts for each prompt, at least 2.
        num_masks: rows of a forward over prompt and text that score a candidate.

    Costs `num_samples` texts, and `num_samples * num_masks` rows of one forward each.

    Raises:
        ValueError: as `generate`; a single candidate; no temperature, since all would be the same.
    """
    refuse_streamer(options)
    several = conform("num_samples", num_samples, Count) > 1
    require(several, "num_samples", num_samples, "give at least 2, of which one is kept")
    masks = conform("num_masks", num_masks, Count)
    temperature = conform("temperature", temperature, Positive)
    model = speaking(model)
    fix = "gaps have text behind them, which is not scored: leave it out"
    require(not options.get("infill"), "infill", options.get("infill"), fix)
    options |= {"num_return_sequences": num_samples, "temperature": temperature}
    most = length_of(model, sampler, options)
    out = generate(model, prompt, sampler, **options)
    score = Likelihood(model, Rows(masks), masks)

    def judge(rows: list[tuple[Generation, int]]) -> tuple[list[Any], int]:
        values = [likelihood(score, out, i, most) for out, i in rows]
        return values, values.index(max(values))

    return choose([out], num_samples, judge, masks)


def refuse_streamer(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a streamer, which takes one text; it is ended."""
    streamer: Any = options.get("streamer")
    if streamer is not None and hasattr(streamer, "end"):
        streamer.end()
    fix = "it takes one text, and several are written: leave it out"
    require(streamer is None, "streamer", type(streamer).__name__, fix)


def length_of(model: Any, sampler: Any, options: Mapping[str, Any]) -> int:
    """`max_new_tokens` of a call, however it is given."""
    settings = {name: value for name, value in options.items() if name not in OTHERS}
    return Call.of(model, sampler, settings).settings.max_new_tokens


def speaking(model: Any) -> Denoiser:
    """The model; `ValueError` for one without a tokenizer, whose texts cannot be told."""
    found = resolve_model(model)
    fix = "it has no tokenizer, so there is no text to judge"
    require(found.tokenizer is not None, "model", type(found).__name__, fix)
    return found


def likelihood(score: Likelihood, out: Generation, i: int, most: int) -> float:
    """The bound per token of row `i`, in nats, its first EOS among the `most` that it may have."""
    start = out.prompt_lengths[i]
    ids = out.sequences[i].tolist()
    text = ids[start : start + min(out.new_tokens[i] + 1, most)]
    return score.bound(ids[:start], text) / max(len(text), 1)


def text_of(out: Generation, i: int) -> str:
    assert out.texts is not None, "`speaking` has seen to it"
    return out.texts[i]


def choose(
    calls: Sequence[Generation],
    num_samples: int,
    judge: Callable[[list[tuple[Generation, int]]], tuple[list[Any], int]],
    scoring: int = 0,
) -> Choice:
    """What `judge` keeps of each prompt's candidates; it costs `scoring` rows a candidate."""
    found = Choice([], [], [], [], [], {})
    kept = 0
    for first in range(0, len(calls[0].nfe), num_samples):
        rows = [(out, first + s) for out in calls for s in range(num_samples)]
        values, best = judge(rows)
        out, i = rows[best]
        found.texts.append(text_of(out, i))
        found.chosen.append(best)
        found.candidates.append([text_of(*row) for row in rows])
        found.values.append(values)
        found.nfe.append(sum(out.nfe[i] for out, i in rows))
        kept += out.new_tokens[i]
    total = {key: sum(out.stats[key] for out in calls) for key in calls[0].stats}
    rows_scored = scoring * sum(map(len, found.candidates))
    found.stats = total | {
        "forward_rows": total["forward_rows"] + rows_scored,
        "scoring_rows": rows_scored,
        "new_tokens": kept,
        "tokens_per_forward": kept / max(sum(found.nfe), 1),
        "tokens_per_second": kept / total["seconds"] if total["seconds"] else 0.0,
    }
    return found
