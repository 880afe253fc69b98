"""Which proxy guides the path search: a token n-gram, the text itself, or a KenLM file."""

from __future__ import annotations

import os
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from dlmdecode.checks import require
from dlmdecode.speculation.diffuspec.ngram import NGram, OnlineNGram, fingerprint
from dlmdecode.speculation.diffuspec.path_search import Proxy

KENLM_ENDINGS = (".arpa", ".bin", ".binary", ".klm", ".arpa.gz")


class KenLM:
    """A KenLM model whose words are the tokenizer's tokens; needs the `kenlm` package.

    It is made by `lmplz` from a file with one text per line, its tokens separated by spaces.

    Args:
        path: an ARPA or binary file.
        tokenizer: gives the word of each id; its EOS is the end of a line.

    Raises:
        FileNotFoundError: no such file.
        OSError: not a file of KenLM's.
        ValueError: no `kenlm` package, or no tokenizer.
    """

    def __init__(self, path: str | os.PathLike[str], tokenizer: Any):
        try:
            import kenlm
        except ImportError as error:
            raise ValueError(
                f"proxy={os.fspath(path)!r}: a KenLM file needs `pip install kenlm`"
            ) from error
        require(tokenizer is not None, "proxy", os.fspath(path), "the drafter has no tokenizer")
        if not Path(path).is_file():
            raise FileNotFoundError(f"no KenLM file {os.fspath(path)!r}")
        self.kenlm, self.model = kenlm, kenlm.Model(os.fspath(path))
        self.order, self.tokenizer = self.model.order, tokenizer

    def at(self, prefix: list[int]) -> KenLM:
        del prefix
        return self

    def log_prob(self, context: np.ndarray, token: np.ndarray) -> np.ndarray:
        """See `NGram.log_prob`."""
        rows = [[self.score(ids, one) for one in token.tolist()] for ids in context.tolist()]
        return np.array(rows)

    def score(self, context: list[int], token: int) -> float:
        state, after = self.kenlm.State(), self.kenlm.State()
        begin = not context or context[0] < 0
        (self.model.BeginSentenceWrite if begin else self.model.NullContextWrite)(state)
        for one in context:
            if one >= 0:
                self.model.BaseScore(state, self.word(one), after)
                state, after = after, state
        return self.model.BaseScore(state, self.word(token), after) * log(10)

    def word(self, token: int) -> str:
        ends = token == self.tokenizer.eos_token_id
        return "</s>" if ends else self.tokenizer.convert_ids_to_tokens(token)


def resolve_proxy(proxy: Any, tokenizer: Any) -> Proxy:
    """The proxy that `proxy` names or is, for ids of `tokenizer`, the drafter's, None if unknown.

    Raises:
        FileNotFoundError, ValueError: see `NGram.load` and `KenLM`; an n-gram of other ids.
    """
    if proxy is None:
        return OnlineNGram()
    if isinstance(proxy, (str, os.PathLike)):
        name = os.fspath(proxy)
        proxy = KenLM(name, tokenizer) if name.endswith(KENLM_ENDINGS) else NGram.load(name)
    require(
        isinstance(proxy, Proxy),
        "proxy",
        proxy,
        "give an NGram, a path to one or to a KenLM file, or None",
    )
    if isinstance(proxy, NGram) and proxy.tokenizer and tokenizer is not None:
        same = proxy.tokenizer == fingerprint(tokenizer)
        require(same, "proxy", "NGram", "it was built with another tokenizer than the drafter's")
    return proxy
