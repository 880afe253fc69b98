"""What `make demo` prints: a held-out word problem decoded by three samplers."""

from __future__ import annotations

from dlmdecode.evals.arithmetic import final_answer, problem
from dlmdecode.generation import generate
from dlmdecode.models.loading import load


def compare(seed: int = 0, max_new_tokens: int = 128) -> str:
    """Question, both texts with their forwards, and whether each answer is right."""
    model, asked = load("tiny"), problem(seed, split="heldout")
    lines = [asked.question, ""]
    for name in ("vanilla", "prophet", "threshold"):
        out = generate(model, asked.question, name, max_new_tokens=max_new_tokens)
        text = (out.texts or [""])[0].strip()
        verdict = "right" if final_answer(text) == asked.answer else f"wrong: {asked.answer}"
        rate = out.stats["tokens_per_forward"]
        lines += [f"{name}: {out.new_tokens[0]} tokens, NFE {out.nfe[0]}, "]
        lines[-1] += f"{rate:.1f} tokens per forward, {verdict}"
        lines += [f"  {text}", ""]
    return "\n".join(lines).rstrip()
