"""Texts in files, for drafters that look them up and for n-grams."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlmdecode.checks import require

FORMAT = "one text per line; .jsonl: a 'text' each"


def read_texts(paths: Sequence[Path], argument: str) -> list[str]:
    """The non-empty lines of text files, or the `text` of each line of .jsonl files.

    Raises:
        OSError: a file that cannot be read.
        ValueError: one that is not UTF-8 or has a line of another form, or no text in any of them;
            names the `argument` that the paths were given for.
    """
    texts = [text for path in paths for text in lines(path, argument)]
    require(bool(texts), argument, [str(path) for path in paths], "there is no text in it")
    return texts


def lines(path: Path, argument: str) -> Iterator[str]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}={str(path)!r}: it is not UTF-8: {error}") from error
    for number, line in enumerate(content.split("\n"), 1):  # a text may hold other separators
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            yield line
            continue
        text, place = text_of(line), f"{path} line {number}"
        require(text is not None, argument, place, "each line is an object with 'text'")
        whole = not re.search("[\ud800-\udfff]", text)
        require(whole, argument, place, "it has half of a surrogate pair: give whole characters")
        if text:
            yield text


def text_of(line: str) -> Any:
    """The `text` of a line of JSON, None where there is none."""
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None
    text = record.get("text") if isinstance(record, dict) else None
    return text if isinstance(text, str) else None


def drafter_of(spec: str, given: Any) -> Any:
    """The drafter of a command line that has a corpus.

    Args:
        given: what the command was given for `--corpus`, for the message.

    Raises:
        ValueError: it looks nothing up in other texts.
    """
    from dlmdecode.speculation.diffuspec.path_search import PathSearch
    from dlmdecode.speculation.drafters import resolve_drafter

    drafter = resolve_drafter(spec, 1, PathSearch().num_candidates)
    fix = f"{spec} looks nothing up in it; give --drafter suffix, hierarchy, or switch or fused"
    require(drafter.takes_corpus, "--corpus", given, f"{fix} with one of them")
    return drafter


def give(drafter: Any, texts: list[str], verifier: Any) -> None:
    """Let a drafter look texts up, in the ids of its model, or else of the verifier."""
    tokenizer = drafter.tokenizer or verifier.tokenizer
    fix = "the verifier has no tokenizer, which a corpus needs"
    require(tokenizer is not None, "--corpus", f"{len(texts)} texts", fix)
    drafter.read_corpus(tokenizer(texts, add_special_tokens=False)["input_ids"])
