"""Questions as people type them, and not as they stand in a book."""

from __future__ import annotations

import random
import re

AROUND = ("{}",) * 3 + (
    "Question: {}", "Q: {}", "Question: {}\nAnswer:", "Q: {}\nA:", "Problem: {}", "Hi! {}",
    "Hello. {}", "{} Thanks!", "{} Thank you.", "Hi! {} Thanks", "Please help me. {}", "Ok. {}",
    "Please solve this: {}", "Solve: {}", "Solve this problem. {}", "Can you tell me? {}",
    "I have a question. {}", "{} Explain.", "{} Show your work.", "{} Please show all steps.",
    "{} Think step by step.", "{} Let's think step by step.", "{} Give the number.",
    "Here is a riddle. {}", "{}\n", " {}", "{} ", "{}\n\n",
)  # fmt: skip


def typed(text: str, random_: random.Random) -> str:
    """Without capitals, a sentence a line, without its last mark, or among other words."""
    if random_.random() < 0.3:
        text = text.lower()
    if random_.random() < 0.3:
        text = re.sub(r"(?<=[.?!]) ", "\n", text)
    if random_.random() < 0.4:
        text = text.rstrip("?.")
    return random_.choice(AROUND).format(text)
