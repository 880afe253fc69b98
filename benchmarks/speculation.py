"""One table: the verifier alone, and what each kind of draft makes of it.

    python benchmarks/speculation.py                          # the embedded pair
    python benchmarks/speculation.py --drafter D --verifier V --prompts prompts.txt
    python benchmarks/speculation.py --dtype bfloat16         # how many texts differ
    python benchmarks/speculation.py --batch 8                # verified together

Every row but the lossy one writes the same text (the last column counts those that differ), prompt
after prompt. In bfloat16 a verifier's logits depend on how many positions a forward has, and
near-ties may fall otherwise. Ratios are tokens per second of CPU time over the verifier's own
`generate`; rows take turns on each prompt. The first prompt warms up and is not counted.
Without --prompts, prompts are held-out arithmetic problems and the n-gram proxy is built from
training problems, as the method's paper builds one from a training split.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from dlmdecode.evals.arithmetic import problem
from dlmdecode.models.loading import load
from dlmdecode.speculation import (
    AdaptiveLength,
    CausalDrafter,
    CostLength,
    DiffusionDrafter,
    FailFast,
    Fused,
    Hierarchy,
    NGram,
    ObservedNGrams,
    PromptLookup,
    Recycling,
    Suffix,
    Switch,
    ThresholdDrafter,
    load_verifier,
    speculate,
)
from dlmdecode.speculation.diffuspec.counting import build
from dlmdecode.speculation.drafters.frequent import frequent_ids

COUNTED = ("new_tokens", "verifier_forwards", "drafter_forwards", "seconds", "search_seconds")
COUNTED += ("draft_seconds", "num_spec_steps", "num_draft_tokens", "num_accepted_draft_tokens")
COUNTED += ("steps",)
CPU = "cpu_seconds"
ALONE = "verifier alone"
TOGETHER = "verifier alone, all prompts at once"
Prompts = list[torch.Tensor]
Run = Callable[[Prompts], tuple[list[list[int]], dict[str, Any]]]


def plain(verifier: Any, length: int, **options: Any) -> Run:
    """Transformers' own generate, prompt after prompt, its forwards counted."""

    def run(prompts: Prompts) -> tuple[list[list[int]], dict[str, Any]]:
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        hook = verifier.model.register_forward_pre_hook(count)
        began = time.perf_counter()
        texts = [
            verifier.model.generate(
                ids[None],
                attention_mask=torch.ones_like(ids)[None],
                do_sample=False,
                max_new_tokens=length,
                **options,
            )[0].tolist()
            for ids in prompts
        ]
        seconds = time.perf_counter() - began
        hook.remove()
        new = sum(map(len, texts)) - sum(map(len, prompts))
        return texts, {"new_tokens": new, "verifier_forwards": calls, "seconds": seconds}

    return run


def padded(verifier: Any, length: int) -> Run:
    """Transformers' own generate, all prompts at once, padded on the left."""
    model, end = verifier.model, verifier.tokenizer.eos_token_id

    def run(prompts: Prompts) -> tuple[list[list[int]], dict[str, Any]]:
        calls: list[None] = []
        hook = model.register_forward_pre_hook(lambda *_: calls.append(None))
        began = time.perf_counter()
        ids = pad_sequence(prompts, True, end, "left")
        shown = pad_sequence([torch.ones_like(one) for one in prompts], True, 0, "left")
        how = {"do_sample": False, "max_new_tokens": length, "pad_token_id": end}
        rows = model.generate(ids, attention_mask=shown, **how).tolist()
        seconds = time.perf_counter() - began
        hook.remove()
        texts = []
        for row, prompt in zip(rows, prompts, strict=True):
            new = row[ids.shape[1] :]
            texts.append(prompt.tolist() + new[: new.index(end) + 1 if end in new else None])
        new = sum(map(len, texts)) - sum(map(len, prompts))
        return texts, {"new_tokens": new, "verifier_forwards": len(calls), "seconds": seconds}

    return run


def drafted(drafter: Any, verifier: Any, length: int, **options: Any) -> Run:
    def run(prompts: Prompts) -> tuple[list[list[int]], dict[str, Any]]:
        out = speculate(drafter, verifier, prompts, max_new_tokens=length, **options)
        rows = zip(out.sequences.tolist(), prompts, out.new_tokens, strict=True)
        return [row[: len(ids) + new] for row, ids, new in rows], out.stats | {
            "steps": len(out.trace)
        }

    return run


def rows(arguments: argparse.Namespace, drafter: Any, verifier: Any, proxy: NGram | None) -> Any:
    """Name and run of each row of the table."""
    length, fixed = arguments.max_new_tokens, arguments.draft_length
    lookup = PromptLookup()
    new = DiffusionDrafter
    common = {"vocabulary": arguments.vocabulary}
    cps = common | {"proxy": proxy}
    adaptive = AdaptiveLength(arguments.k_min, arguments.k_max, arguments.delta)
    yield ALONE, plain(verifier, length)
    if arguments.batch > 1:
        yield TOGETHER, padded(verifier, length)
    yield "transformers' prompt lookup", plain(verifier, length, prompt_lookup_num_tokens=10)
    yield "prompt lookup, our loop", drafted(lookup, verifier, length, draft_length=10)
    how = common | {"path_search": "argmax", "draft_length": fixed}
    yield f"argmax draft of {fixed}", drafted(new(drafter), verifier, length, **how)
    how = cps | {"draft_length": fixed}
    yield "+ path search", drafted(new(drafter), verifier, length, **how)
    how = cps | {"draft_length": adaptive}
    yield "+ adaptive length", drafted(new(drafter), verifier, length, **how)
    how |= {"acceptance": "typical"}
    yield "+ typical acceptance (lossy)", drafted(new(drafter), verifier, length, **how)
    how = common | {"draft_length": adaptive}
    yield "same, the text's own n-gram", drafted(new(drafter), verifier, length, **how)
    yield "FailFast", drafted(FailFast(drafter), verifier, length, **cps)
    yield "threshold drafting", drafted(ThresholdDrafter(drafter), verifier, length, **cps)
    how = cps | {"path_search": "tree", "draft_length": adaptive}
    yield "lattice tree", drafted(new(drafter), verifier, length, **how)
    how |= {"draft_length": CostLength()}
    yield "lattice tree, by cost", drafted(new(drafter), verifier, length, **how)
    fused = Fused(DiffusionDrafter(drafter), Suffix())
    yield "fused: path search, suffix", drafted(fused, verifier, length, **cps)
    yield "suffix or threshold", drafted(Switch(ThresholdDrafter(drafter)), verifier, length, **cps)
    yield from without_model(verifier, length)
    model, tokenizer = verifier.model, verifier.tokenizer
    for count in arguments.frequent if isinstance(proxy, NGram) else ():
        cut = CausalDrafter(model, tokenizer, frequent_ids(proxy, verifier.vocab_size, count))
        how = {"draft_length": fixed}
        yield f"the verifier, {count} ids", drafted(cut, verifier, length, **how)


def without_model(verifier: Any, length: int) -> Any:
    """Drafts that need no model. Those with (texts) remember the texts before."""
    yield "suffix", drafted(Suffix(), verifier, length)
    yield "suffix (texts)", drafted(Suffix(keep=True), verifier, length)
    yield "hierarchy (texts)", drafted(Hierarchy(), verifier, length)
    yield "n-grams (texts)", drafted(ObservedNGrams(keep=True), verifier, length)
    fused = Fused(Recycling(), Suffix())
    yield "recycling + suffix", drafted(fused, verifier, length)
    both = Fused(ObservedNGrams(), Recycling(), 96)
    yield "n-grams + recycling", drafted(both, verifier, length)
    fused = Fused(Fused(ObservedNGrams(), Recycling(), 96), Suffix(), 96)
    yield "n-grams + recycling + suffix", drafted(fused, verifier, length)
    long = ObservedNGrams(order=8, nodes=64, candidates=6, keep=True)
    both = Fused(long, Recycling(keep=True), 112)
    yield "long n-grams + recycling (texts)", drafted(both, verifier, length)
    fused = Fused(ObservedNGrams(keep=True, nodes=48), Suffix(keep=True))
    yield "n-grams + suffix (texts)", drafted(fused, verifier, length)


def training_ngram(tokenizer: Any, count: int, vocab_size: int, order: int) -> NGram:
    texts = [problem(seed, "train") for seed in range(count)]
    ids = tokenizer([one.question + one.solution for one in texts])["input_ids"]
    return build([row + [tokenizer.eos_token_id] for row in ids], vocab_size, order)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--drafter", default="tiny")
    add("--verifier", default="tiny-ar")
    add("--vocabulary", default="auto")
    add("--dtype", default="auto", help="the verifier's (the checkpoint's)")
    add("--prompts", type=Path, help="one prompt per line; without it, arithmetic problems")
    add("--proxy", help="n-gram file; without it, training problems or the text itself")
    add("--count", type=int, default=100, help="problems")
    add("--batch", type=int, default=1, help="prompts that are verified together")
    add("--ngram-texts", type=int, default=20_000, help="training problems for the n-gram")
    add("--ngram-order", type=int, default=3)
    add("--max-new-tokens", type=int, default=128)
    add("--draft-length", type=int, default=20)
    help = "also the verifier as its own drafter, with a head for so many ids"
    add("--frequent", type=int, nargs="+", default=(), metavar="N", help=help)
    add("--k-min", type=int, default=20)
    add("--k-max", type=int, default=30)
    add("--delta", type=int, default=10)
    add("--rows", nargs="+", metavar="NAME", help="of the table, beside the verifier's own; all")
    add("--threads", type=int, default=1)
    add("--output", type=Path, help="also write the table as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    drafter = load(arguments.drafter, "cpu")
    verifier = load_verifier(arguments.verifier, "cpu", arguments.dtype)
    if arguments.prompts:
        prompts = arguments.prompts.read_text().splitlines()
        proxy = arguments.proxy
    else:
        prompts = [problem(seed).question for seed in range(arguments.count + 1)]
        proxy = arguments.proxy or training_ngram(
            drafter.tokenizer, arguments.ngram_texts, drafter.vocab_size, arguments.ngram_order
        )
    ids = [torch.tensor(verifier.tokenizer(text)["input_ids"]) for text in prompts]
    runs = dict(rows(arguments, drafter, verifier, proxy))
    unknown = set(arguments.rows or ()) - set(runs)
    if unknown:
        parser.error(f"--rows {sorted(unknown)}: the rows are {', '.join(runs)}")
    wanted = {ALONE, TOGETHER, *(arguments.rows or runs)}
    chosen = {name: run for name, run in runs.items() if name in wanted}
    table = measure(chosen, ids, arguments.batch)
    report(table, arguments, len(prompts) - 1, str(verifier.model.dtype))


def measure(runs: dict[str, Run], prompts: Prompts, batch: int) -> dict[str, dict[str, float]]:
    """Totals of each row; all rows decode `batch` prompts before the next ones are read."""
    for run in runs.values():
        run(prompts[:1])  # warm up
    totals = {name: dict.fromkeys((*COUNTED, CPU), 0.0) | {"different": 0} for name in runs}
    for first in range(1, len(prompts), batch):
        ids = prompts[first : first + batch]
        texts = {}
        for name, run in runs.items():
            began = time.process_time()
            texts[name], stats = run(ids)
            totals[name][CPU] += time.process_time() - began
            for key in COUNTED:
                totals[name][key] += stats.get(key, 0)
        own = texts[ALONE]
        for name, rows in texts.items():
            pairs = zip(rows, own, strict=True)
            totals[name]["different"] += sum(text != other for text, other in pairs)
    return totals


def report(
    table: dict[str, dict[str, float]], arguments: argparse.Namespace, count: int, dtype: str
) -> None:
    print(
        f"{count} prompts, {platform.processor() or platform.machine()}, "
        f"torch {torch.__version__}, verifier in {dtype}"
    )
    print(f"{'':35} speed  per forward  accepted  rate  verifier  drafter  different")
    alone = table[ALONE]
    base = alone["new_tokens"] / alone[CPU]
    for name, row in table.items():
        steps, tokens = max(row["num_spec_steps"], 1), max(row["num_draft_tokens"], 1)
        row["speed"] = row["new_tokens"] / row[CPU] / base
        row["tokens_per_forward"] = row["new_tokens"] / row["verifier_forwards"]
        row["mean_accepted_tokens"] = row["num_accepted_draft_tokens"] / steps
        row["draft_acceptance_rate"] = row["num_accepted_draft_tokens"] / tokens
        print(
            f"{name:35} {row['speed']:4.2f}x {row['tokens_per_forward']:12.2f} "
            f"{row['mean_accepted_tokens']:9.2f} "
            f"{row['draft_acceptance_rate']:5.2f} {row['verifier_forwards']:9.0f} "
            f"{row['drafter_forwards']:8.0f} {row['different']:10.0f}"
        )
    searched = ("+ path search", "+ adaptive length", "threshold drafting", "lattice tree")
    for name in filter(table.__contains__, searched):
        search, draft = table[name]["search_seconds"], table[name]["draft_seconds"]
        forwards = table[name]["drafter_forwards"]
        print(
            f"{name}: search {1e3 * search / forwards:.2f} ms, {100 * search / draft:.1f} % of a "
            f"draft forward of {1e3 * draft / forwards:.2f} ms"
        )
    for name, row in table.items():
        if row["steps"] > row["verifier_forwards"]:
            forwards = row["verifier_forwards"]
            print(f"{name}: {row['steps']:.0f} verifications in {forwards:.0f} forwards")
        if row["different"]:
            print(f"{name}: {row['different']:.0f} of {count} texts differ from the verifier's own")
    if arguments.output:
        settings = {key: str(value) for key, value in vars(arguments).items()}
        arguments.output.write_text(json.dumps({"settings": settings, "rows": table}, indent=1))


if __name__ == "__main__":
    main()
