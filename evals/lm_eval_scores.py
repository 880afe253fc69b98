"""Log-likelihoods for the harness: Monte Carlo bounds, in windows where a text is long."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from lm_eval.api.instance import Instance
from tqdm import tqdm

from dlmdecode.checks import require
from dlmdecode.evals.encoding import Ids
from dlmdecode.evals.lm_eval_base import HarnessModel
from dlmdecode.likelihood import Likelihood, windows

logger = logging.getLogger("dlmdecode.evals.lm_eval")


class ScoringModel(HarnessModel):
    """Scores texts, and counts those that the model had no room for.

    Attributes:
        likelihood: gives the bounds.
        max_length: positions to use; None where the model has no limit.
        is_check_greedy: whether to tell if a continuation is what greedy decoding gives.
        options: arguments of `generate`; of these `cfg_scale` guides a likelihood, too.
        counts: how many texts were cut, by what was done to them.
    """

    likelihood: Likelihood
    max_length: int | None
    is_check_greedy: bool
    options: dict[str, Any]
    counts: Counter[str]

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Bound on log p(continuation | context), and whether greedy decoding gives it."""
        self.check_guidance()
        answers = []
        for request in tqdm(requests, disable=disable_tqdm):
            context, target = self.encoder.pair(*request.args)
            answers.append(self.score(context, target, self.is_check_greedy))
            self.cache_hook.add_partial("loglikelihood", request.args, answers[-1])
        self.warn()
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[Any]:
        """Bound on log p(text): a number, or a pair as above where requests have a context too.

        (Requests of harness 0.4 are `(text,)`, those of 0.5 are `("", text)`.)
        """
        self.check_guidance()
        answers: list[Any] = []
        for request in tqdm(requests, disable=disable_tqdm):
            context, target = self.encoder.pair("", request.args[-1])
            value = self.score(context, target, greedy=False)
            answers.append(value if len(request.args) > 1 else value[0])
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answers[-1])
        self.warn()
        return answers

    def check_guidance(self) -> None:
        given = self.options.get("negative_prompt")
        fix = "a likelihood is guided away from the masked prompt only: leave it out"
        require(given is None, "negative_prompt", given, fix)

    def score(self, context: Ids, target: Ids, greedy: bool) -> tuple[float, bool]:
        """Bound and greediness of `target`, in windows where it is longer than the model."""
        pieces = list(windows(context, target, self.max_length, self.encoder.shorten))
        self.counts["texts scored in windows"] += len(pieces) > 1
        self.counts["shortened contexts"] += len(pieces) == 1 and len(pieces[0][0]) < len(context)
        value = sum((self.likelihood.bound(*piece) for piece in pieces), 0.0)
        return value, greedy and all(self.likelihood.is_greedy(*piece) for piece in pieces)

    def warn(self) -> None:
        told = [f"{count} {what}" for what, count in self.counts.items() if count]
        if told:
            logger.warning("the model has %s positions: %s", self.max_length, ", ".join(told))
