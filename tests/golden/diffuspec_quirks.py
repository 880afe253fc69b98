"""The recorded DiffuSpec components on this library's parts, and what the recorded code adds.

Its quirks, each the smallest part below: candidate sets go on until EOS has been taken (`natural`),
the lattice ends wherever EOS is among them, the proxy is add-k smoothed (`AddK`), a second
denoising step predicts every position anew from the first draft (`redrafted`).

`JUDGES[method](case, folder, model)` gives "" for a match, else what differs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.generation.stopping_criteria import EosTokenCriteria

from dlmdecode.speculation.diffuspec.lattice import Lattice, TopM
from dlmdecode.speculation.diffuspec.path_search import search
from dlmdecode.speculation.draft_length import AdaptiveLength
from dlmdecode.speculation.drafters import DiffusionDrafter
from dlmdecode.speculation.drafters.plan import together
from dlmdecode.speculation.tree import Draft
from dlmdecode.speculation.verifier.cached_model import Ending
from dlmdecode.speculation.verifier.verification import Choices, walk

Case = dict[str, Any]


class AddK:
    """log (count + k) / (total + k V) after the longest context that was ever seen."""

    def __init__(self, about: dict[str, Any]):
        self.order, self.k = about.get("n", 1), about.get("k", 1.0)
        self.size = about["vocab_size"]
        self.counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        for context, token, count in about.get("counts", ()):
            self.counts[tuple(context)][token] = count

    def log_prob(self, context: np.ndarray, token: np.ndarray) -> np.ndarray:
        rows = [[i for i in ids if i >= 0] for ids in context.tolist()]
        return np.array([[self.score(ids, one) for one in token.tolist()] for ids in rows])

    def score(self, context: list[int], token: int) -> float:
        ways = (tuple(context[start:]) for start in range(len(context) + 1))
        known = next((self.counts[way] for way in ways if way in self.counts), {})
        chance = (known.get(token, 0) + self.k) / (sum(known.values()) + self.k * self.size)
        return log(chance)


def proxy_of(case: Case, folder: Path) -> AddK:
    file, name = case["extra"]["proxy"].split("#")
    return AddK(json.loads((folder / file).read_text())[name])


def natural(row: TopM, size: int, mass: float, eos: int) -> tuple[list[int], list[float], bool]:
    """A position's candidates by the recorded rule, and whether EOS was among the best ones."""
    ids, log_prob, total = [], [], 0.0
    for token, own in zip(row.ids.tolist(), row.log_prob.tolist(), strict=True):
        if len(ids) == size or (total >= mass and eos in ids):
            break
        ids.append(token)
        log_prob.append(own)
        total += float(torch.tensor(own).exp())
    ended = eos in ids
    if not ended:
        where = row.ids.tolist().index(eos)
        ids.append(eos)
        log_prob.append(float(row.log_prob[where]))
    return ids, log_prob, ended


def lattice_of(top: TopM, params: dict[str, Any]) -> Lattice:
    """Sets by the recorded rule; `top` holds the whole vocabulary."""
    rows = []
    for one in zip(top.ids, top.log_prob, strict=True):
        found = natural(TopM(*one), params["M_max"], params["tau"], params["eos_token_id"])
        rows.append(found[:2])
        if found[2]:
            break
    count = torch.tensor([len(ids) for ids, _ in rows])
    ids, log_prob = (
        torch.nn.utils.rnn.pad_sequence([torch.tensor(row[part]) for row in rows], True)
        for part in (0, 1)
    )
    return Lattice(ids, log_prob, count)


def path_of(
    top: TopM, prefix: list[int], proxy: AddK, params: dict[str, Any]
) -> tuple[Lattice, list[int], float]:
    lattice = lattice_of(top, params)
    eos = (params["eos_token_id"],)
    path, score = search(lattice, prefix, proxy, params["beam_size"], params["lam"], eos)
    return lattice, path, score


def redrafted(drafter: DiffusionDrafter, prefix: list[int], length: int, steps: int) -> TopM:
    top = drafter.draft(prefix, length)
    for _ in range(steps - 1):
        (top,) = together([drafter.look(prefix, top.ids[:, 0])])
    return top


def judge_adl(case: Case, folder: Path, model: Any) -> str:
    del folder, model
    rule = AdaptiveLength(**case["params"])
    lengths = []
    for step in case["extra"]["trace"]:
        if rule.length != step["k"]:
            return f"length {rule.length} instead of {step['k']}"
        rule.update(step["l_gen"], step["l_acc"])
        lengths.append(rule.length)
    return "" if lengths == case["output"] else f"lengths {lengths} instead of {case['output']}"


def judge_cps(case: Case, folder: Path, model: Any) -> str:
    del model
    file, name = case["extra"]["lattice"].split("#")
    log_prob = load_file(folder / file)[name]
    order = log_prob.argsort(dim=-1, descending=True, stable=True)
    top = TopM(order, log_prob.gather(1, order))
    proxy = proxy_of(case, folder)
    lattice, path, score = path_of(top, case["prompt"], proxy, case["params"])
    sets = [ids[:n].tolist() for ids, n in zip(lattice.ids, lattice.count, strict=True)]
    if sets != case["extra"]["candidate_sets"]:
        return "candidate sets differ"
    if path != case["output"]:
        return f"path {path} instead of {case['output']}"
    close = abs(score - case["extra"]["score"]) < 1e-4
    return "" if close else f"score {score} instead of {case['extra']['score']}"


def judge_proxy(case: Case, folder: Path, model: Any) -> str:
    del model
    proxy, size = proxy_of(case, folder), case["params"].get("n", 1) - 1
    prompt, text = case["prompt"], case["output"]
    scores = [proxy.score(prompt[max(0, len(prompt) - size) :], token) for token in text]
    whole = sum(proxy.score(text[max(0, i - size) : i], text[i]) for i in range(len(text)))
    pairs = [*zip(scores, case["extra"]["scores"], strict=True)]
    pairs.append((whole, case["extra"]["sequence_score"]))
    worst = max(abs(a - b) for a, b in pairs)
    return "" if worst < 1e-6 else f"scores differ by {worst}"


def judge_verify(case: Case, folder: Path, model: Any) -> str:
    del folder, model
    extra = case["extra"]
    ending = Ending([EosTokenCriteria(case["params"]["eos_token_id"])], torch.device("cpu"))
    scores = torch.nn.functional.one_hot(torch.tensor(extra["target_greedy_tokens"])).float()
    chosen = Choices(scores, case["prompt"], None, None)
    draft = Draft.chain(extra["draft_ids"])
    path, written, ended = walk(draft, chosen, partial(ending, case["prompt"]))
    found = (written, len(path), ended)
    wanted = (case["output"], extra["n_accepted"], extra["hit_eos"])
    return "" if found == wanted else f"{found} instead of {wanted}"


def judge_draft(case: Case, folder: Path, model: Any) -> str:
    del folder
    params, prompt = case["params"], case["prompt"]
    drafter = DiffusionDrafter(model, num_candidates=model.vocab_size, prefix_cache=False)
    with torch.inference_mode():
        top = redrafted(drafter, prompt, params["draft_len"], params["num_refinement_steps"])
    if prompt + top.ids[:, 0].tolist() != case["output"] or drafter.forwards != case["nfe"]:
        return f"draft {top.ids[:, 0].tolist()}, {drafter.forwards} forwards"
    uniform = AddK({"vocab_size": model.vocab_size})
    _, path, _ = path_of(top, prompt, uniform, params)
    return "" if path == case["extra"]["cps_path"] else f"path {path}"


JUDGES: dict[str, Callable[[Case, Path, Any], str]] = {
    "diffuspec-adl": judge_adl,
    "diffuspec-cps": judge_cps,
    "diffuspec-proxy": judge_proxy,
    "diffuspec-verify": judge_verify,
    "diffuspec-draft": judge_draft,
}
