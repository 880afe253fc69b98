"""Rows of a batch in one forward of the verifier: each is what its single run is."""

import random

import pytest
import torch
from fuzz_conditions import Counting
from fuzz_drafters import Branching
from fuzz_speculate import verifier
from speculation_toys import TEXT, byte_level, llama, micro

from dlmdecode.evals.arithmetic import problem
from dlmdecode.speculation import (
    CausalDrafter,
    DiffusionDrafter,
    Draft,
    FailFast,
    Fused,
    Hierarchy,
    LayerSkip,
    LogitSpec,
    ObservedNGrams,
    PromptLookup,
    Recycling,
    Suffix,
    Switch,
    ThresholdDrafter,
    Verifier,
    load_verifier,
)
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.verifier.branches import Block, tree_mask
from dlmdecode.speculation.verifier.cached_model import CachedModel, takes_batches
from dlmdecode.trace import read
from dlmdecode.trace.view import verifying

DRAFTERS = {
    "lookup": PromptLookup,
    "suffix": Suffix,
    "logitspec": LogitSpec,
    "recycling": lambda: Recycling(nodes=12),
    "ngram": lambda: ObservedNGrams(nodes=12),
    "fused": lambda: Fused(Recycling(nodes=8), Suffix()),
    "causal": lambda: CausalDrafter(llama(300, seed=1, eos=())),
    "failfast": lambda: FailFast(micro("dream"), block=3, low=0.0),
    "threshold": lambda: ThresholdDrafter(micro("dream"), dear=100),
    "diffusion": lambda: DiffusionDrafter(micro("llada"), 2),
    "fused diffusion": lambda: Fused(DiffusionDrafter(micro("dream")), Suffix()),
    "no cache": lambda: FailFast(micro("dream"), block=3, low=0.0, prefix_cache=False),
    "switch": lambda: Switch(FailFast(micro("dream"), block=3), at_least=1),
}


SHARED = {"failfast", "threshold", "switch", "diffusion", "fused diffusion", "no cache"}


class Guided(Branching):
    """Trees with the right text in them."""

    copyable = True


def ragged(size=300):
    """Prompts of different lengths whose tokens repeat."""
    choice = random.Random(0)
    return [torch.tensor([choice.randrange(size // 20) for _ in range(n)]) for n in (3, 14, 1, 8)]


def steps(out, row=0):
    return [
        (s.number, s.length, s.draft, s.parent, s.path, s.written)
        for s in out.trace
        if s.row == row
    ]


def same_as_alone(drafter, model, ids, shared=False, **how):
    """A batch, each row of which is compared with its run alone; `shared` are drafters' forwards
    that are over several rows."""
    batch, forwards = decode(drafter, model, ids, **how), []
    for row, one in enumerate(ids):
        single = decode(drafter, model, one, **how)
        length = len(one) + single.new_tokens[0]
        assert batch.new_tokens[row] == single.new_tokens[0]
        assert torch.equal(batch.sequences[row, :length], single.sequences[0])
        assert steps(batch, row) == steps(single)
        forwards.append(single.stats["drafter_forwards"])
    assert max(forwards) <= batch.stats["drafter_forwards"] <= sum(forwards)
    assert (batch.stats["drafter_forwards"] < sum(forwards)) == bool(shared)
    most = max(len(steps(batch, row)) for row in range(len(ids)))
    assert batch.stats["verifier_forwards"] == most < len(batch.trace)
    return batch


@pytest.mark.parametrize("temperature", [0.0, 0.7], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma"])
def test_chains_and_trees_of_several_rows_are_those_of_each_row_alone(family, temperature):
    model, ids = verifier(family).model, ragged()
    text = [Verifier(model).generate(one, max_new_tokens=24).sequences[0].tolist() for one in ids]
    ends = [text[0][9], text[1][17], text[3][20]]  # rows end at different steps
    how = dict(temperature=temperature, seed=5, max_new_tokens=14, draft_length=5)
    same_as_alone(Guided(3, text), model, ids, eos_token_id=ends, **how)


@pytest.mark.parametrize("kind", sorted(DRAFTERS))
def test_every_drafter_that_can_be_copied_keeps_the_rows_apart(kind):
    model, drafter = verifier("llama").model, DRAFTERS[kind]()
    assert drafter.copyable
    how = dict(max_new_tokens=8, draft_length=5, vocabulary="identity")
    same_as_alone(drafter, model, ragged()[:3], kind in SHARED, **how)


def test_the_embedded_pair_writes_its_rows_together():
    model = load_verifier("tiny-ar", "cpu", "float32")
    texts = [problem(seed).question for seed in range(3)]
    ids = [torch.tensor(model.tokenizer(text)["input_ids"]) for text in texts]
    same_as_alone("tiny", model, ids, True, max_new_tokens=40, path_search="tree")


def test_stop_strings_processors_and_on_step_are_each_rows_own():
    tokenizer = byte_level(300)
    one = Verifier(llama(300, eos=(0,)), tokenizer)
    free = one.generate(list(TEXT), max_new_tokens=20)
    pieces = [tokenizer.decode(token) for token in free.sequences[0, -12:-4]]
    stop = next(piece for piece in pieces if piece.isascii() and piece.isprintable())
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in TEXT]
    shown = []
    how = dict(max_new_tokens=20, stop_strings=[stop], repetition_penalty=1.2, guidance_scale=1.5)
    out = same_as_alone(Recycling(nodes=12), one, ids, **how)
    decode(Recycling(nodes=12), one, ids, on_step=shown.append, **how)
    assert sorted(shown, key=lambda step: step.row) == out.trace
    assert [step.row for step in shown[:4]] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("drafter", "family", "options"),
    [
        (lambda _: Suffix(keep=True), "llama", {}),
        (lambda _: Hierarchy(), "llama", {}),
        (lambda model: LayerSkip(model, layers=1), "llama", {}),
        (lambda _: PromptLookup(), "mistral-sliding", {}),
        (lambda _: PromptLookup(), "llama-longrope", {}),
        (lambda _: PromptLookup(), "llama", {"logits_processor": [Counting()]}),
    ],
    ids=["memory", "hierarchy", "layers", "window", "frequencies", "processor"],
)
def test_rows_that_cannot_be_written_together_are_written_one_after_the_other(
    drafter, family, options
):
    model, ids = verifier(family).model, ragged()
    drafter = drafter(model)
    out = decode(drafter, model, ids, max_new_tokens=8, **options)
    assert out.stats["verifier_forwards"] == len(out.trace)
    with pytest.raises(ValueError, match="batch_size=2"):
        decode(drafter, model, ids, max_new_tokens=8, batch_size=2, **options)


def test_batch_size_says_how_many_rows_a_forward_is_over():
    model, ids = verifier("llama").model, ragged()
    how = dict(max_new_tokens=8, eos_token_id=None, draft_length=0)
    forwards = {
        size: decode(PromptLookup(), model, ids, batch_size=size, **how).stats["verifier_forwards"]
        for size in (None, 1, 2, 3, 9)
    }
    assert forwards == {None: 8, 1: 32, 2: 16, 3: 16, 9: 8}
    with pytest.raises(ValueError, match="batch_size=0"):
        decode(PromptLookup(), model, ids, batch_size=0, **how)


def test_a_trace_shows_each_rows_time_from_when_it_began(tmp_path):
    path, ids = tmp_path / "run.jsonl", ragged()
    for size in (4, 1):
        how = dict(max_new_tokens=4, draft_length=2, batch_size=size, trace=path)
        decode(PromptLookup(), verifier("llama").model, ids, **how)
    for run in read(path):
        for row in range(len(ids)):
            seconds = [frame["seconds"] for frame in verifying(run, row)]
            assert seconds == sorted(seconds) and seconds[0] >= 0


def test_the_cache_of_several_texts_holds_each_ones_own():
    model, choice = verifier("llama").model, random.Random(1)
    texts = [one.tolist() for one in ragged()]
    cached = CachedModel(model, len(texts))
    for _ in range(6):
        drafts = []
        for _ in texts:
            size = choice.randrange(5)
            parent = [choice.randrange(-1, node) for node in range(size)]
            drafts.append(Draft([10 + node for node in range(size)], parent))
        scores = cached(texts, drafts)
        paths = []
        for text, draft, own in zip(texts, drafts, scores, strict=True):
            [alone] = CachedModel(model)([text], [draft])
            assert torch.allclose(own, alone, atol=1e-4)
            path, node = [], choice.randrange(-1, len(draft))
            while node >= 0:
                path.insert(0, node)
                node = draft.parent[node]
            paths.append(path)
        cached.keep([len(text) for text in texts], paths)
        for text, draft, path in zip(texts, drafts, paths, strict=True):
            text += [draft.token[node] for node in path] + [choice.randrange(300)]
        if len(texts) > 2:
            cached.only([0, 2, 3][: len(texts) - 1])
            texts = [texts[row] for row in [0, 2, 3][: len(texts) - 1]]


def test_no_query_of_a_mask_sees_nothing():
    blocks = [
        Block(5, 1, Draft([1, 2], [-1, -1])),
        Block(2, 4, Draft.chain([])),
        Block(0, 1, Draft.chain([])),
    ]
    mask = tree_mask(blocks, 5, torch.float16)
    assert mask.shape == (3, 1, 4, 9)
    seen = (mask == 0).sum(-1)[:, 0].tolist()
    assert seen == [[1, 6, 7, 7], [3, 4, 5, 6], [1, 1, 1, 1]]


def test_only_models_that_take_any_mask_and_keep_their_frequencies_take_batches():
    able = [takes_batches(verifier(family).model) for family in ("llama", "gpt2", "qwen3", "gemma")]
    assert able == [True] * 4
    unable = ("mistral-sliding", "llama-longrope")
    assert not any(takes_batches(verifier(family).model) for family in unable)
