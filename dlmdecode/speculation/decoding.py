"""`speculate`: draft, search, verify, until the verifier's text is written.

The verifier's own `generate` prepares everything (`custom_generate`): its generation config, logits
processors, stopping criteria and cache are those of plain decoding, so all that they mean holds
here, and what they refuse is refused. Only the loop that follows is ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlmdecode.checks import conform, plain
from dlmdecode.noise import streams, uniform
from dlmdecode.prompts import encode_prompts
from dlmdecode.settings import Seed
from dlmdecode.speculation.draft_length import AdaptiveLength, FixedLength, resolve_length
from dlmdecode.speculation.drafters import DiffusionDrafter, Drafter, resolve_drafter
from dlmdecode.speculation.forward import Forward, Stop, process
from dlmdecode.speculation.lattice import TopM, draft_end
from dlmdecode.speculation.options import check_options, no_stop_strings, with_stop_strings
from dlmdecode.speculation.path_search import BestTokens, PathSearch, Proxy, resolve_search
from dlmdecode.speculation.proxies import resolve_proxy
from dlmdecode.speculation.verification import verify
from dlmdecode.speculation.verifier import check_context, pad, resolve_verifier
from dlmdecode.speculation.vocabulary import Vocabulary, match


@dataclass(frozen=True)
class Step:
    """One verification.

    Attributes:
        row: which prompt.
        number: 1, 2, … within the row.
        length: tokens that the draft-length rule asked for, cut at the end of the text.
        draft: ids of the draft in the verifier's vocabulary; empty where nothing was drafted.
        accepted: how many of them stand.
        written: ids this step added: accepted draft tokens and the verifier's own one.
    """

    row: int
    number: int
    length: int
    draft: tuple[int, ...]
    accepted: int
    written: tuple[int, ...]


@dataclass
class Speculation:
    """What `speculate` returns.

    Attributes:
        sequences: (B, P+G) int64, each row prompt then text, right-padded.
        texts: the text of each row without prompt and special tokens; None without a tokenizer.
        new_tokens: tokens of each row's text, its EOS included.
        stats: over all rows, in vLLM's terms. Steps with a draft: num_spec_steps; their tokens:
            num_draft_tokens, num_accepted_draft_tokens; draft_acceptance_rate; the mean per step
            without (mean_accepted_tokens, DiffuSpec's MAT) and with the verifier's own token
            (mean_acceptance_length); acceptance_histogram[j]: steps that accepted j tokens.
            verifier_forwards, drafter_forwards, new_tokens, tokens_per_second, and seconds, of
            which draft_seconds, search_seconds, verify_seconds.
        trace: every `Step`, row after row.
    """

    sequences: Tensor
    texts: list[str] | None
    new_tokens: list[int]
    stats: dict[str, Any]
    trace: list[Step]


def speculate(
    drafter: Any,
    verifier: Any,
    prompt: Any,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    path_search: Any = "cps",
    proxy: Any = None,
    draft_length: Any = "adaptive",
    seed: int | None = None,
    draft_steps: int = 1,
    vocabulary: Any = "auto",
    tokenizer: Any = None,
    attention_mask: Tensor | None = None,
    on_step: Callable[[Step], None] | None = None,
    **options: Any,
) -> Speculation:
    """Write what the verifier alone would have written, in fewer of its forwards (DiffuSpec,
    arXiv 2510.02358; with `draft_steps` > 1 and path_search="argmax" SpecDiff, arXiv 2408.05636).

    Args:
        drafter: a diffusion language model, a name or path for `load`, or a `Drafter`.
        verifier: a transformers causal LM, a name or path for `load_verifier`, or a `Verifier`.
        prompt: as in `generate`, in the verifier's vocabulary and chat template.
        max_new_tokens: at most this many per prompt.
        temperature: 0 for greedy decoding; above, sampling from the verifier's distribution.
        path_search: "cps", "argmax", or a `PathSearch` with other settings.
        proxy: n-gram that guides the search: an `NGram`, a path to one or to a KenLM file, any
            `Proxy`; None counts the prompt and the text as it grows.
        draft_length: "adaptive", a number of tokens, or an `AdaptiveLength` with other settings.
        seed: key of all randomness, 0 if None; a row's text depends on seed and prompt only.
        draft_steps: denoising steps per draft.
        vocabulary: "auto" needs identical tokenizers; else "string_match", "retokenize",
            "identity", or a dict {drafter id: verifier id}.
        tokenizer: the verifier's, where `verifier` is a bare transformers model.
        attention_mask: (B, P) for a tensor of prompts, 1 for a prompt's tokens.
        on_step: called with a `Step` after every verification.
        **options: options of the verifier's own `generate`: `top_k`, `top_p`, `stop_strings`,
            `repetition_penalty`, `eos_token_id`, `stopping_criteria`, …

    Rows are decoded one after the other and do not depend on each other. Equality with plain
    decoding is exact where the verifier's logits do not depend on how many positions one forward
    computes; in bfloat16 they do in the last bits, and near-ties may fall otherwise.

    Raises:
        ValueError: bad argument; the message names it, its value and the fix.
        TypeError: unknown option, with the closest known name.
    """
    max_new_tokens, temperature = plain(max_new_tokens), plain(temperature)
    draft_length, draft_steps = plain(draft_length), plain(draft_steps)
    seed = conform("seed", seed, Seed | None) or 0
    verifier = resolve_verifier(verifier, tokenizer)
    check_options(options, temperature, verifier)
    search, lengths = resolve_search(path_search), resolve_length(draft_length)
    prompts = encode_prompts(prompt, attention_mask, verifier)
    check_context(prompts, max_new_tokens, verifier)
    drafter = resolve_drafter(drafter, draft_steps, search.num_candidates)
    words = match(vocabulary, drafter, verifier)
    scorer = resolve_proxy(proxy, drafter)
    if temperature > 0:
        options |= {"do_sample": True, "temperature": float(temperature)}
    else:
        options |= {"do_sample": False}
    options = with_stop_strings(options, verifier)
    before = getattr(drafter, "forwards", 0)
    began = time.perf_counter()
    loops = []
    for row, (ids, key) in enumerate(zip(prompts, streams(prompts, seed), strict=True)):
        source = Source(drafter, words, search, scorer, lengths.start())
        loop = Loop(row, source, key if temperature > 0 else None, on_step)
        with no_stop_strings(verifier.model.generation_config):
            verifier.model.generate(
                ids[None],
                attention_mask=torch.ones_like(ids)[None],
                max_new_tokens=max_new_tokens,
                custom_generate=loop,
                **options,
            )
        loops.append(loop)
    rows = [torch.tensor(loop.tokens, device=verifier.device) for loop in loops]
    forwards = getattr(drafter, "forwards", 0) - before
    stats = summary(loops, time.perf_counter() - began) | {"drafter_forwards": forwards}
    return Speculation(
        pad(rows, verifier),
        verifier.decode(rows, prompts),
        [len(row) - len(ids) for row, ids in zip(rows, prompts, strict=True)],
        stats,
        [step for loop in loops for step in loop.steps],
    )


@dataclass
class Source:
    """Where a row's drafts come from."""

    drafter: Drafter
    words: Vocabulary
    search: PathSearch | BestTokens
    proxy: Proxy
    lengths: AdaptiveLength | FixedLength
    draft_seconds: float = 0.0
    search_seconds: float = 0.0

    def __post_init__(self) -> None:
        if hasattr(self.drafter, "reset"):
            self.drafter.reset()
        if isinstance(self.drafter, DiffusionDrafter):
            self.drafter.restrict(self.words)
        self.eos_ids = tuple(getattr(self.drafter, "eos_ids", ()))

    def draft(self, text: list[int], length: int) -> tuple[list[int], int]:
        """A draft of at most `length` verifier ids, and the tokens before its first EOS."""
        if length < 1:
            return [], 0
        began = time.perf_counter()
        prefix = self.words.to_drafter(text)
        if not prefix:  # nothing of the text means anything to the drafter
            return [], 0
        proposed = self.drafter.draft(prefix, length)
        drafted = time.perf_counter()
        if isinstance(proposed, TopM):
            generated = draft_end(proposed, self.eos_ids)
            proposed = self.search(proposed, prefix, self.proxy, self.eos_ids)
        else:
            ends = (i for i, token in enumerate(proposed) if token in self.eos_ids)
            generated = next(ends, len(proposed))
        self.draft_seconds += drafted - began
        self.search_seconds += time.perf_counter() - drafted
        return self.words.to_verifier(proposed, text)[:length], generated


class Loop:
    """The decoding loop that transformers' `generate` calls, for one row."""

    def __init__(
        self, row: int, source: Source, key: Tensor | None, on_step: Callable[[Step], None] | None
    ):
        self.row, self.source, self.key, self.on_step = row, source, key, on_step
        self.tokens: list[int] = []
        self.steps: list[Step] = []
        self.forwards, self.verify_seconds = 0, 0.0

    @torch.inference_mode()
    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> Tensor:
        self.tokens = input_ids[0].tolist()
        forward = Forward(model, kwargs)
        stop = Stop(stopping_criteria, generation_config)
        done = False
        while not done:
            room = generation_config.max_length - len(self.tokens)
            length = min(self.source.lengths.length, room - 1)
            draft, generated = self.source.draft(self.tokens, length)
            began = time.perf_counter()
            scores = forward(self.tokens, draft)
            scores = process(scores, self.tokens + draft, logits_processor)
            accepted, token = verify(scores, draft, self.noise(len(draft)))
            written, done = stop.cut(self.tokens, [*draft[:accepted], token])
            forward.keep(len(self.tokens) + accepted)
            self.tokens += written
            self.verify_seconds += time.perf_counter() - began
            accepted = min(accepted, len(written))
            self.source.lengths.update(generated, accepted)
            self.record(length, draft, accepted, written)
        self.forwards = forward.calls
        return torch.tensor([self.tokens])

    def noise(self, length: int) -> Tensor | None:
        """Random numbers of the next length + 1 positions."""
        if self.key is None:
            return None
        start = len(self.tokens)
        position = torch.arange(start, start + length + 1, device=self.key.device)
        return uniform(self.key, position)

    def record(self, length: int, draft: list[int], accepted: int, written: list[int]) -> None:
        number = len(self.steps) + 1
        step = Step(self.row, number, length, tuple(draft), accepted, tuple(written))
        self.steps.append(step)
        if self.on_step is not None:
            self.on_step(step)


def summary(loops: list[Loop], seconds: float) -> dict[str, Any]:
    """The statistics of `Speculation.stats`, but the drafter's forwards."""
    steps = [step for loop in loops for step in loop.steps if step.draft]
    drafted, accepted = sum(len(s.draft) for s in steps), sum(s.accepted for s in steps)
    histogram = [0] * (max((s.accepted for s in steps), default=-1) + 1)
    for step in steps:
        histogram[step.accepted] += 1
    mean = accepted / max(len(steps), 1)
    total = sum(len(step.written) for loop in loops for step in loop.steps)
    return {
        "mean_accepted_tokens": mean,
        "mean_acceptance_length": mean + 1,
        "draft_acceptance_rate": accepted / max(drafted, 1),
        "acceptance_histogram": histogram,
        "num_spec_steps": len(steps),
        "num_draft_tokens": drafted,
        "num_accepted_draft_tokens": accepted,
        "verifier_forwards": sum(loop.forwards for loop in loops),
        "new_tokens": total,
        "tokens_per_second": total / seconds,
        "seconds": seconds,
        "draft_seconds": sum(loop.source.draft_seconds for loop in loops),
        "search_seconds": sum(loop.source.search_seconds for loop in loops),
        "verify_seconds": sum(loop.verify_seconds for loop in loops),
    }
