"""Diffusion language models in EleutherAI's lm-evaluation-harness.

    python -m dlmdecode.evals.lm_eval run --model dlmdecode \\
        --model_args pretrained=tiny,sampler=adablock+credit,max_new_tokens=128 --tasks gsm8k

Every argument of `generate` and every sampler option may stand among the model arguments
(`threshold=0.8`); they win over a task's own `generation_kwargs`. Generation ends at the task's
`until` strings, which are looked for in the finished text. Log-likelihoods are Monte Carlo bounds
(`dlmdecode/likelihood.py`); how texts become tokens is in `evals/encoding.py`.

A text that the model has no room for ends no run: a context loses its beginning, `max_gen_toks` is
cut to what the prompt leaves (but not below half of the window), and a scored text longer than the
window is scored in consecutive windows. A warning and the results' `config` say how often.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

import dlmdecode
from dlmdecode.call import resolve_model
from dlmdecode.checks import conform, require, whole
from dlmdecode.console import EXPECTED, fail
from dlmdecode.evals.encoding import Encoder, Ids
from dlmdecode.evals.lm_eval_options import (
    fit,
    positions,
    read_model_arguments,
    read_settings,
    rows_of,
)
from dlmdecode.likelihood import Likelihood
from dlmdecode.result import Generation
from dlmdecode.settings import DEFAULT_SAMPLER, Seed, Settings

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import register_model

    from dlmdecode.evals.lm_eval_scores import ScoringModel
except ImportError:
    raise ImportError("dlmdecode.evals.lm_eval needs the harness: pip install lm-eval") from None


@dataclass(frozen=True)
class Call:
    """A request to generate: prompt, arguments of an engine, and where its text ends."""

    ids: Ids
    options: dict[str, Any]
    stops: tuple[str, ...]

    @property
    def key(self) -> str:
        """Equal for calls that can share an engine."""
        return json.dumps(self.options, sort_keys=True, default=str)


@register_model("dlmdecode")
class DiffusionLM(ScoringModel):
    """A checkpoint with a sampler.

    Args:
        pretrained: embedded name, hub id or folder; or a loaded model.
        sampler: as for `generate`.
        batch_size: prompts, or masked copies of one text, in a call of the model; "auto" begins
            with `max_batch_size` (64) and halves it where memory runs out.
        device: None takes the GPU if there is one, and each process its own; so does cuda:0, the
            harness's default.
        dtype, revision, quantize: as for `load`.
        add_bos_token: whether a BOS stands before a text; None leaves it to the tokenizer.
        max_length: positions to use, if fewer than the model has.
        mc_num: masks drawn for a log-likelihood.
        is_check_greedy: also decode each continuation token by token, to tell whether it is what
            greedy decoding gives (LAMBADA's accuracy); without it the answer is always no.
        escape_until: keep the text after an `until` string.
        seed: of masks and of sampling; repeats of a request take the next ones.
        **options: arguments of `generate` and options of the sampler.

    Raises:
        ValueError: a wrong value, a model without tokenizer, or remote code.
        TypeError: unknown argument, with the closest known name.
    """

    def __init__(
        self,
        pretrained: Any = "tiny",
        sampler: Any = DEFAULT_SAMPLER,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        quantize: str | None = None,
        add_bos_token: bool | None = None,
        max_length: int | None = None,
        mc_num: int = 128,
        is_check_greedy: bool = True,
        escape_until: bool = False,
        trust_remote_code: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__()
        for name, value in (
            ("is_check_greedy", is_check_greedy),
            ("escape_until", escape_until),
            ("trust_remote_code", trust_remote_code),
        ):
            conform(name, value, bool)
        conform("add_bos_token", add_bos_token, bool | None)
        unsafe = "remote code is never run; leave it out"
        require(not trust_remote_code, "trust_remote_code", True, unsafe)
        self.seed, num_masks = conform("seed", seed, Seed), whole("mc_num", mc_num)
        self.rows = rows_of(batch_size, max_batch_size)
        self.model = self.model_of(pretrained, device, dtype, revision, quantize)
        self.max_length = positions(self.model.max_length, max_length)
        self.sampler, self.options = read_model_arguments(sampler, options)
        self.encoder = Encoder(self.model, add_bos_token)
        guidance = self.options.get("cfg_scale", 0.0)
        self.likelihood = Likelihood(self.model, self.rows, num_masks, self.seed, guidance)
        self.is_check_greedy, self.escape_until = is_check_greedy, escape_until
        self.counts: Counter[str] = Counter()
        try:
            self.check({})
        except TypeError as error:
            own = ", ".join(list(inspect.signature(DiffusionLM).parameters)[:-1])
            raise TypeError(f"{error}; arguments beside those of generate: {own}") from None

    def model_of(self, pretrained: Any, device: Any, *options: Any) -> Any:
        """What `load` gives for the arguments, or the model that is loaded already."""
        by_name = isinstance(pretrained, (str, os.PathLike))
        placed = (self.own_device(device) if by_name else device, *options)
        fix = "a model that is loaded has its own; leave it out"
        untouched = placed == (None, "auto", None, None)
        require(by_name or untouched, "device, dtype, revision, quantize", placed, fix)
        model = dlmdecode.load(pretrained, *placed) if by_name else resolve_model(pretrained)
        require(model.tokenizer is not None, "pretrained", pretrained, "it has no tokenizer")
        return model

    def check(self, options: dict[str, Any]) -> None:
        """Raise what `generate` would for the model arguments with a task's `options`."""
        given = {**options, **self.options}
        parts = [given[n] for n in ("block_length", "steps") if isinstance(given.get(n), int)]
        given.setdefault("max_new_tokens", max([1, *parts]) if parts else 32)
        copies = given.get("num_return_sequences", 1)
        require(copies == 1, "num_return_sequences", copies, "a request has one text: leave it out")
        require("seed" not in options, "seed", options.get("seed"), "it is a model argument")
        fitted, _ = fit(given, 1, self.max_length)
        dlmdecode.stream(self.model, [self.encoder.start], self.sampler, seed=self.seed, **fitted)

    # ---- generation ----

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text of each request, cut at its `until` strings."""
        calls = self.calls(requests)
        texts = [""] * len(calls)
        order = sorted(range(len(calls)), key=lambda i: calls[i].key)
        with tqdm(total=len(calls), disable=disable_tqdm) as bar:
            for _, group in itertools.groupby(order, key=lambda i: calls[i].key):
                for i, text in self.decode({i: calls[i] for i in group}):
                    texts[i] = text
                    self.cache_hook.add_partial("generate_until", requests[i].args, text)
                    bar.update()
        self.warn()
        return texts

    def calls(self, requests: Sequence[Instance]) -> list[Call]:
        """What an engine is to be given, checked; too long ones shortened."""
        calls: list[Call] = []
        checked, repeats = set(), Counter[tuple[str, str]]()
        for request in requests:
            text, settings = request.args[:2]
            wanted, stops = read_settings(settings)
            if (shown := repr(wanted)) not in checked:
                self.check(wanted)
                checked.add(shown)
            ids = self.encoder.prompt(text)
            options, room = fit({**wanted, **self.options}, len(ids), self.max_length)
            length = (wanted | self.options).get("max_new_tokens", Settings.max_new_tokens)
            self.counts["shortened prompts"] += len(ids) > room
            self.counts["cut max_gen_toks"] += length > options["max_new_tokens"]
            options["seed"] = self.seed + repeats[text, shown]
            repeats[text, shown] += 1
            own = options.get("stop_strings") or ()
            own = (own,) if isinstance(own, str) else tuple(own)
            stops = own if self.escape_until else (*stops, *own)
            calls.append(Call(self.encoder.shorten(ids, room), options, stops))
        return calls

    def decode(self, calls: dict[int, Call]) -> Iterator[tuple[int, str]]:
        """The number of each call and its text, as they are finished; all have the same options."""
        while calls:
            numbers, num_rows = list(calls), min(self.rows.size, len(calls))
            prompts = [torch.tensor(calls[i].ids, dtype=torch.int64, device="cpu") for i in numbers]
            options = calls[numbers[0]].options
            engine = dlmdecode.Engine(self.model, self.sampler, batch_size=num_rows, **options)
            try:
                for request in engine.run(prompts):
                    i = numbers[request.index]
                    yield i, self.text(calls.pop(i), request.result())
            except torch.OutOfMemoryError:
                if not self.rows.halve(num_rows):
                    raise

    def text(self, call: Call, out: Generation) -> str:
        start, stop = out.prompt_lengths[0], out.prompt_lengths[0] + out.new_tokens[0]
        return self.encoder.decode(out.sequences[0, start:stop].tolist(), call.stops)

    # ---- what the results say ----

    def get_model_info(self) -> dict[str, Any]:
        """Joins the `config` of the harness's results."""
        return {
            "sampler": str(self.sampler),
            "options": self.options,
            "mc_num": self.likelihood.num_masks,
            "max_length": self.max_length,
            **{what.replace(" ", "_"): count for what, count in self.counts.items()},
        }


def main() -> None:
    """The harness's own command line, with this model among its models."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except EXPECTED as error:
        sys.exit(fail(str(error)))
    except KeyboardInterrupt:
        kept = any(word.partition("=")[0] in ("--use_cache", "-c") for word in sys.argv)
        again = f"to go on: python -m dlmdecode.evals.lm_eval {shlex.join(sys.argv[1:])}"
        fix = again if kept else "with --use_cache FILE, answers are kept and the run can go on"
        print(f"interrupted; {fix}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
