"""Whether a prompt is of the kind that the embedded models were trained on.

They know arithmetic word problems and small Python functions, nothing else. Their tokenizer has the
words of these whole and spells any other, so that a prompt tells by itself.
"""

from __future__ import annotations

import re
import sys
from typing import Any

KNOWN = "arithmetic word problems and small Python functions"
MOST_SPELLED = 0.25  # share of words; of the problems' own, none is spelled


def is_foreign(prompt: str, tokenizer: Any) -> bool:
    """Whether a prompt has no number and no function, or many words the tokenizer must spell."""
    words = list(re.finditer(r"[^\W\d_]+", prompt))
    offsets = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    starts = {start for start, _ in offsets}
    spelled = [word for word in words if starts & set(range(word.start() + 1, word.end()))]
    return not re.search(r"\d|^def ", prompt) or len(spelled) > MOST_SPELLED * len(words)


def advise(name: str, prompt: str, tokenizer: Any, options: str) -> None:
    """A line on standard error for who asks an embedded model something else.

    Args:
        options: those that load another model.
    """
    if is_foreign(prompt, tokenizer):
        print(
            f"dlmdecode: note: {name} is an embedded model that knows {KNOWN} and nothing else; "
            f"load another one with {options}",
            file=sys.stderr,
        )
