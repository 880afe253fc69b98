"""Drafters: by name, with options, from outside the package, and what they are told and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speculation_toys import MODELS, TEXT, byte_level, llama, micro

from dlmdecode import plugins
from dlmdecode.checks import Count
from dlmdecode.commands.cli import main
from dlmdecode.speculation import (
    DiffusionDrafter,
    Draft,
    Drafter,
    PromptLookup,
    TopM,
    Verifier,
    list_drafters,
    register_drafter,
)
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.drafters import resolve_drafter
from dlmdecode.speculation.drafters.registry import DRAFTERS

PROMPT = torch.tensor([5, 90, 33, 7, 61, 5, 12])
RULES = [{}, {"temperature": 1.0, "seed": 3}, {"repetition_penalty": 1.05}]


class Followers(Drafter):
    """What followed each token of the verifier's last time; learns from what it is shown."""

    def __init__(self, depth: Count = 4):
        self.depth = depth
        self.after: dict[int, int] = {}
        self.resets = 0
        self.seen: list[tuple[int, int, tuple[int, ...], list[int], list[int]]] = []

    def reset(self) -> None:
        self.after.clear()
        self.resets += 1

    def draft(self, prefix: list[int], length: int) -> Draft:
        ids: list[int] = []
        token = prefix[-1]
        while len(ids) < min(self.depth, length) and token in self.after:
            token = self.after[token]
            ids.append(token)
        return Draft.chain(ids, [-0.5] * len(ids))

    def observe(self, seen) -> None:
        tokens = [seen.text[-1], *seen.draft.token]
        self.after |= dict(zip(tokens, seen.scores.argmax(-1).tolist(), strict=True))
        shape = tuple(seen.scores.shape)
        self.seen.append((len(seen.text), len(seen.draft), shape, seen.accepted, seen.written))


@pytest.fixture
def followers() -> Iterator[str]:
    register_drafter("followers", paper="this test")(Followers)
    yield "followers"
    del DRAFTERS["followers"]


@pytest.fixture
def folder(tmp_path):
    """A verifier on disk that repeats itself, so that drafts are accepted."""
    llama(300, seed=2, eos=(0,)).save_pretrained(tmp_path)
    byte_level(300).save_pretrained(tmp_path)
    return str(tmp_path)


def alone(model, prompt=PROMPT, **options):
    if "temperature" not in options:
        return Verifier(model).generate(prompt, **options).sequences
    return decode(PromptLookup(), model, prompt, draft_length=0, **options).sequences


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("spec", ["followers", "followers,depth=2", "lookup", "lookup,longest=1"])
def test_a_drafter_by_name_writes_the_verifiers_text(followers, spec, rule):
    model, prompts = llama(), [PROMPT, PROMPT[:3]]
    out = decode(spec, model, prompts, max_new_tokens=40, **rule)
    assert torch.equal(out.sequences, alone(model, prompts, max_new_tokens=40, **rule))
    assert out.stats["num_draft_tokens"] > 0
    if spec == "followers,depth=2":
        assert max(len(step.draft) for step in out.trace) == 2


def test_a_drafter_by_name_on_the_command_line(followers, folder, capsys):
    command = ["speculate", TEXT[0], "--verifier", folder, "--max-new-tokens", "12", "--json"]
    texts = []
    for drafter in ("followers,depth=3", "lookup"):
        assert main([*command, "--drafter", drafter]) == 0
        texts.append(json.loads(capsys.readouterr().out)["text"])
    verifier = Verifier(llama(300, seed=2, eos=(0,)), byte_level(300))
    assert texts == verifier.generate(TEXT[0], max_new_tokens=12).texts * 2
    assert main([*command, "--drafter", "followers,depth=0.5"]) == 2
    assert "depth=0.5: give a whole number, at least 1" in capsys.readouterr().err
    assert main([*command, "--drafter", "folowers"]) == 2
    assert "did you mean 'followers'" in capsys.readouterr().err


def test_drafters_are_listed_with_their_options(followers, capsys):
    own = {"causal", "diffusion", "fused", "hierarchy", "lookup", "ngram", "recycling", "suffix"}
    assert own | {"followers", "logitspec", "switch"} <= set(list_drafters())
    with pytest.raises(SystemExit) as end:
        main(["speculate", "--list-drafters"])
    assert end.value.code == 0
    listed = capsys.readouterr().out
    assert "followers  this test\n  What followed each token" in listed
    assert "  depth=4\n" in listed and "diffusion  arXiv 2510.02358" in listed


def test_each_text_is_a_new_one_and_each_verification_is_shown():
    model, drafter = llama(), Followers()
    out = decode(drafter, model, [PROMPT, PROMPT[:3]], max_new_tokens=20)
    assert drafter.resets >= 2
    assert len(drafter.seen) == len(out.trace)
    lengths = {0: 7, 1: 3}
    for step, (before, drafted, shape, accepted, written) in zip(
        out.trace, drafter.seen, strict=True
    ):
        assert (before, drafted) == (lengths[step.row], len(step.draft))
        assert shape == (drafted + 1, 320)
        assert accepted == list(range(step.accepted)) and written == list(step.written)
        lengths[step.row] += len(written)


class Looking(Drafter):
    def __init__(self, prompt_scores):
        self.prompt_scores, self.seen = prompt_scores, []

    def draft(self, prefix, length):
        return [7]

    def observe(self, seen):
        self.seen.append(seen)


@pytest.mark.parametrize("asked, shown", [(0, 0), (3, 3), (256, 6)])
def test_a_drafter_is_shown_the_logits_after_a_prompts_end(asked, shown):
    model, drafter = llama(), Looking(asked)
    out = decode(drafter, model, PROMPT, max_new_tokens=6)
    assert torch.equal(out.sequences, alone(model, max_new_tokens=6))
    first, *later = drafter.seen
    with torch.inference_mode():
        logits = model(PROMPT[None]).logits[0]
    torch.testing.assert_close(first.before, logits[len(PROMPT) - 1 - shown : -1])
    torch.testing.assert_close(first.scores[0], logits[-1])
    assert first.best(2).ids.shape == (shown + 2, 2)
    assert [len(seen.before) for seen in later] == [0] * len(later)


@pytest.mark.parametrize(
    "spec", ["diffusion,model={},steps=2,num_candidates=4,prefix_cache=false", "causal,model={}"]
)
def test_models_are_named_within_a_drafter(spec, folder):
    path = folder if spec.startswith("causal") else MODELS / "llada-micro"
    drafter = resolve_drafter(spec.format(path), 1, 15)
    out = decode(drafter, llama(), PROMPT, max_new_tokens=12, vocabulary="identity", draft_length=4)
    assert torch.equal(out.sequences, alone(llama(), max_new_tokens=12))
    assert out.stats["drafter_forwards"] > 0
    if isinstance(drafter, DiffusionDrafter):
        assert (drafter.steps, drafter.eyes.num_candidates, drafter.cache) == (2, 4, None)


def test_a_drafters_name_wins_over_a_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lookup").mkdir()
    assert isinstance(resolve_drafter("lookup", 1, 15), PromptLookup)
    with pytest.raises(FileNotFoundError, match="no config.json"):
        resolve_drafter("./lookup", 1, 15)


@pytest.mark.parametrize(
    "spec, error, message",
    [
        ("lokup,longest=2", FileNotFoundError, "'causal', 'diffusion'.*'lookup'.*'tiny'.*'lookup'"),
        ("lookup,longst=2", ValueError, "lookup takes longest; did you mean 'longest'"),
        ("lookup,longest", ValueError, "not of the form option=value"),
        ("lookup,longest=0", ValueError, "^longest=0"),
        ("ngram,candidates=33", ValueError, "^candidates=33: give .* at most 32"),
        ("diffusion", ValueError, "drafter='diffusion': diffusion needs model="),
        ("diffusion,model=tiny,steps=0", ValueError, "^steps=0"),
    ],
)
def test_a_name_or_an_option_that_is_none_is_refused(spec, error, message):
    with pytest.raises(error, match=message):
        decode(spec, llama(), PROMPT, max_new_tokens=4)


def test_options_of_a_model_are_none_of_a_drafter_by_name():
    for options in ({"draft_steps": 2}, {"path_search": "argmax"}, {"proxy": "file.safetensors"}):
        with pytest.raises(ValueError, match=f"^{next(iter(options))}="):
            decode("lookup", llama(), PROMPT, max_new_tokens=4, **options)
    with pytest.raises(ValueError, match="^draft_steps=.*at most draft_length=2"):
        drafter = DiffusionDrafter(micro("llada"), steps=3)
        pair = {"vocabulary": "identity", "max_new_tokens": 8}
        decode(drafter, llama(), PROMPT, draft_length=2, **pair)


def test_a_name_is_registered_once_and_is_an_identifier(followers):
    with pytest.raises(ValueError, match="name='followers': a drafter of this name"):
        register_drafter("followers")(Followers)
    with pytest.raises(ValueError, match="name='two words'"):
        register_drafter("two words")(Followers)


def test_an_installed_package_offers_drafters_by_entry_points(monkeypatch):
    def load():
        register_drafter("elsewhere")(Followers)

    groups = {"dlmdecode.drafters": [SimpleNamespace(name="elsewhere", load=load)]}
    monkeypatch.setattr(plugins, "entry_points", lambda group: groups.get(group, []))
    try:
        assert "elsewhere" in list_drafters()
        assert isinstance(resolve_drafter("elsewhere", 1, 15), Followers)
    finally:
        del DRAFTERS["elsewhere"]


class Giving(Drafter):
    def __init__(self, given):
        self.given = given

    def draft(self, prefix, length):
        return self.given


LATTICE = TopM(torch.tensor([[7, 8]]), torch.tensor([[-0.1, -3.0]]))


@pytest.mark.parametrize(
    "given, message",
    [
        (LATTICE, "Giving.searched=False"),
        (torch.tensor([7, 8]), r"Giving.draft\(…\)=torch.int64"),
        (None, r"Giving.draft\(…\)=None"),
    ],
)
def test_what_a_drafter_may_not_return_is_refused_by_its_name(given, message):
    with pytest.raises(ValueError, match=message):
        decode(Giving(given), llama(), PROMPT, max_new_tokens=4)


def test_an_object_that_drafts_needs_no_base_class():
    resets = []
    alike = SimpleNamespace(
        draft=lambda prefix, length: [7] * length, reset=lambda: resets.append(1), eos_ids=(7,)
    )
    out = decode(alike, llama(), PROMPT, max_new_tokens=8)
    none = SimpleNamespace(draft=lambda prefix, length: [])
    assert torch.equal(out.sequences, decode(none, llama(), PROMPT, max_new_tokens=8).sequences)
    assert out.stats["num_draft_tokens"] > 0 and resets
    with pytest.raises(ValueError, match="draft_steps=2: SimpleNamespace has its own"):
        decode(alike, llama(), PROMPT, max_new_tokens=4, draft_steps=2)


def test_what_cannot_draft_is_told_of_the_base_class():
    with pytest.raises(ValueError, match=r"drafter='SimpleNamespace'.*speculation\.Drafter"):
        decode(SimpleNamespace(), llama(), PROMPT, max_new_tokens=4)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_drafts_come_as_lists_arrays_and_tensors(kind):
    draft = Draft(kind([7, 8, 8]), kind([-1, 0, 1]), kind([-0.5, -0.5, 0.0]))
    assert draft == Draft((7, 8, 8), (-1, 0, 1), (-0.5, -0.5, 0.0))
    assert draft.is_chain and len(draft) == 3
    assert draft == Draft.chain(kind([7, 8, 8]), kind([-0.5, -0.5, 0.0]))
    assert not Draft(kind([7, 8, 8]), kind([-1, -1, 1])).is_chain


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([7.5], [-1]), "whole numbers"),
        (([7, 8], [-1]), "parent=.*one for each of 2"),
        (([7, 8], [-1, 1]), "parent=.*earlier one"),
        (([7, 8], [1, -1]), "parent=.*earlier one"),
        (([7, 8], [-1, -2]), "parent=.*earlier one"),
        (([7, 7], [-1, -1]), "token=.*join equal ones"),
        (([7, 8], [-1, 0], [-0.5]), "log_prob=.*2 logarithms"),
        (([7], [-1], [0.7]), "log_prob=.*none above 0"),
        (([7], [-1], [float("nan")]), "log_prob="),
    ],
)
def test_a_draft_that_is_no_tree_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Draft(*arguments)
