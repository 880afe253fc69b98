"""Trees of draft tokens: one forward over all branches, a walk with the verifier's own choices."""

import random
from itertools import product

import pytest
import torch
import transformers
from fuzz_conditions import Patience
from fuzz_speculate import FAMILIES, verifier
from scipy.stats import chisquare
from speculation_toys import llama

from dlmdecode.speculation import CausalDrafter, Draft, Drafter, Fused, Verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.verifier.branches import takes_trees
from dlmdecode.speculation.verifier.cached_model import CachedModel
from dlmdecode.speculation.verifier.verification import Choices, Verdict, walk

PROMPT = torch.tensor([5, 90, 33, 7, 61, 5, 12, 8, 44, 21])
LIMIT = 1e-4
MORE = {
    "qwen3": ("Qwen3", dict(head_dim=8)),
    "bloom": ("Bloom", dict(hidden_size=32, n_layer=2, n_head=4)),
}
TREES = ("llama", "llama-longrope", "gpt2", "gemma", "qwen3")


def model_of(family):
    FAMILIES.update(MORE)
    try:
        return verifier(family).model
    finally:
        for name in MORE:
            del FAMILIES[name]


class Branching(Drafter):
    """Trees in which the right text is one branch, as often as not; the others are random."""

    def __init__(self, text, seed=0, nodes=12, vocab=300, chain=False):
        self.text, self.seed, self.nodes, self.vocab, self.chain = text, seed, nodes, vocab, chain

    def draft(self, prefix, length):
        choice = random.Random(f"{self.seed} {len(prefix)}")
        right = self.text[len(prefix) : len(prefix) + choice.randint(0, length)]
        paths = [right[: choice.randint(0, len(right))] for _ in range(3)]
        for path in paths:
            path += [choice.randrange(self.vocab) for _ in range(choice.randint(0, 3))]
        paths.append(right)
        choice.shuffle(paths)
        tree = Draft.joined([path[:length] for path in paths])
        return tree.first_chain() if self.chain else tree


def plain(model, new=30, **options):
    ids = PROMPT[None]
    own = dict(attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new)
    return model.generate(ids, **own | options)[0].tolist()


def depth(draft):
    return max(draft.depth, default=-1) + 1


@pytest.mark.parametrize("family", [*TREES, "mistral-sliding", "bloom"])
@pytest.mark.parametrize("chain", [False, True], ids=["tree", "chain"])
def test_the_greedy_text_is_the_verifiers_own(family, chain):
    model = model_of(family)
    text = plain(model, 40)
    for seed in range(4):
        drafter = Branching(text, seed, chain=chain)
        out = decode(drafter, model, PROMPT, max_new_tokens=40, draft_length=6)
        assert out.sequences.tolist() == [text]
        branched = any(step.path != tuple(range(step.accepted)) for step in out.trace)
        assert branched == (family in TREES and not chain)


def test_models_that_cannot_compute_a_tree_are_given_its_first_chain():
    assert [takes_trees(model_of(family)) for family in ("llama", "gpt2", "gemma")] == [True] * 3
    assert not takes_trees(model_of("mistral-sliding"))
    assert not takes_trees(model_of("bloom"))
    one = llama()
    one.config._attn_implementation = "flash_attention_2"
    assert not takes_trees(one)
    tree = Draft([7, 8, 9, 9], [-1, -1, 1, 0])
    assert CachedModel(model_of("bloom")).fits(0, 3, tree) == Draft.chain([7, 9])


def test_a_model_that_passes_over_the_mask_is_found_out():
    class Unmasked(transformers.LlamaForCausalLM):
        def forward(self, *args, attention_mask=None, position_ids=None, **kwargs):
            return super().forward(*args, **kwargs)

    torch.manual_seed(0)
    assert takes_trees(llama())
    assert not takes_trees(Unmasked(llama().config).eval())


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"guidance_scale": 2.0},
        {"eos_token_id": None},
        {"stopping_criteria": [Patience(1)]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_trees_with_processors_and_criteria(options):
    model = model_of("llama")
    options = {"eos_token_id": plain(model, 40)[-7:-5]} | options
    if "stopping_criteria" in options:
        options["stopping_criteria"] = [Patience(6)]
    text = plain(model, 40, **options)
    if "stopping_criteria" in options:
        options["stopping_criteria"] = [Patience(6)]
    drafter = Branching(plain(model, 60), 3)
    out = decode(drafter, model, PROMPT, max_new_tokens=40, draft_length=8, **options)
    assert out.sequences.tolist() == [text]


@pytest.mark.parametrize("kind", ["random", "flat", "deep"])
@pytest.mark.parametrize("family", TREES)
def test_a_node_has_the_logits_of_a_plain_forward_over_its_path(family, kind):
    model, choice = model_of(family), random.Random(kind)
    size = 14
    parent = {
        "random": [choice.randrange(-1, node) for node in range(size)],
        "flat": [-1] * size,
        "deep": [max(node - 2, -1) for node in range(size)],
    }[kind]
    draft = Draft([choice.randrange(300) for _ in range(size)], parent)
    cached, text = CachedModel(model), PROMPT.tolist()
    for known in (0, 4):
        cached.keep([known], [()])
        [scores] = cached([text], [draft])
        for node in range(-1, size):
            path, at = [], node
            while at >= 0:
                path.insert(0, draft.token[at])
                at = draft.parent[at]
            with torch.no_grad():
                alone = model(torch.tensor([text + path])).logits[0, -1]
            assert torch.allclose(scores[node + 1], alone, atol=1e-4)


@pytest.mark.parametrize("family", TREES)
def test_after_a_branch_was_accepted_the_cache_holds_its_text(family):
    model, text = model_of(family), PROMPT.tolist()
    draft = Draft([7, 8, 9, 10, 11, 12], [-1, -1, 0, 1, 3, 1])
    for path in ([], [0], [0, 2], [1], [1, 3, 4], [1, 5]):
        cached = CachedModel(model)
        cached([text], [draft])
        cached.keep([len(text)], [path])
        longer = text + [draft.token[node] for node in path] + [3]
        for after in (Draft.chain([6, 2]), Draft([6, 2, 2], [-1, -1, 0])):
            [again], [fresh] = (one([longer], [after]) for one in (cached, CachedModel(model)))
            assert torch.allclose(again, fresh, atol=1e-4)
            cached.keep([len(longer) - 1], [()])


class Fixed(Drafter):
    def __init__(self, draft):
        self.given = draft

    def draft(self, prefix, length):
        return self.given.cut(length)


TOY_TREE = Draft([0, 1, 3, 1], [-1, -1, 0, 1], [-0.4, -1.2, -0.2, -0.9])
CHAIN = Draft.chain([0, 1, 2], [-0.4, -0.3, -0.1])
DRAFTERS = {
    "tree": Fixed(TOY_TREE),
    "chain": Fixed(CHAIN),
    "fused": Fused(Fixed(CHAIN), Fixed(Draft([2, 0, 4], [-1, -1, 1]))),
}


def texts_of(model, prompt, length, vocab):
    """Every text of `length` tokens and its probability."""
    texts = list(product(range(vocab), repeat=length))
    rows = torch.tensor([prompt.tolist() + list(text) for text in texts])
    with torch.inference_mode():
        log_prob = model(rows).logits.double().log_softmax(-1)[:, len(prompt) - 1 : -1]
    p = log_prob.gather(2, rows[:, len(prompt) :, None])[..., 0].sum(1).exp()
    return texts, p.numpy()


def frequencies(model, prompt, drafter, count):
    """p value of sampled texts of 3 tokens; rows are draws of the walk over a tree's scores."""
    texts, p = texts_of(model, prompt, 3, 5)
    out = decode(drafter, model, [prompt] * count, max_new_tokens=3, temperature=1.0)
    drawn = [tuple(row) for row in out.sequences[:, len(prompt) :].tolist()]
    common = p * count >= 5
    observed = [drawn.count(text) for text in texts]
    rare = [sum(o for o, c in zip(observed, common, strict=True) if not c)]
    kept = [o for o, c in zip(observed, common, strict=True) if c]
    expected = [*(count * p[common]), count * p[~common].sum()]
    return chisquare(kept + rare, expected).pvalue


@pytest.fixture
def toy():
    return llama(5, eos=(), spread=0.2), torch.tensor([1, 2, 3])


@pytest.mark.parametrize("drafts", DRAFTERS)
def test_sampled_texts_come_with_their_probabilities(toy, drafts):
    assert frequencies(*toy, DRAFTERS[drafts], 250) > LIMIT


def biased(draft, chosen, ends):
    """A child is kept with min(1, p / q), its q the drafter's; it was not drawn from q."""
    written, path, node = [], [], -1
    while True:
        p = chosen.scores[node + 1].double().softmax(-1)
        at = float(chosen.uniform[len(written)])
        kept = None
        for (parent, token), child in draft.children.items():
            q = float(torch.tensor(draft.log_prob[child]).exp()) if draft.log_prob else 0.4
            if parent == node and kept is None and at < min(1.0, float(p[token]) / q):
                kept = child
        if kept is None or ends([*written, draft.token[kept]]):
            token = chosen(node, written) if kept is None else draft.token[kept]
            return Verdict(path, [*written, token], ends([*written, token]))
        path.append(kept)
        written.append(draft.token[kept])
        node = kept


@pytest.mark.parametrize("drafts", DRAFTERS)
def test_the_same_check_fails_for_the_biased_rule(toy, drafts, monkeypatch):
    monkeypatch.setattr("dlmdecode.speculation.row.walk", biased)
    assert frequencies(*toy, DRAFTERS[drafts], 250) < LIMIT


def test_the_walk_over_a_tree_has_the_probabilities_of_its_scores():
    scores = torch.tensor([[0.1, 0.9, 0.3], [2.0, 0.1, 0.4], [0.1, 0.3, 0.2], [1.0, 0.0, 0.0]])
    draft, count = Draft([1, 2, 0], [-1, -1, 0]), 6000
    noise = torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = {}
    for row in noise:
        written = walk(draft, Choices(scores, [], None, row), lambda new: len(new) == 3).written
        found[tuple(written)] = found.get(tuple(written), 0) + 1
    p = scores.double().softmax(-1)
    wanted = {(0,): p[0, 0]}
    wanted |= {(2, token): p[0, 2] * p[2, token] for token in range(3)}
    wanted |= {(1, token): p[0, 1] * p[1, token] for token in (1, 2)}
    wanted |= {(1, 0, token): p[0, 1] * p[1, 0] * p[3, token] for token in range(3)}
    assert set(found) == set(wanted)
    observed = [found[text] for text in wanted]
    assert chisquare(observed, [count * float(one) for one in wanted.values()]).pvalue > LIMIT


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_a_sampled_text_is_the_same_for_no_draft_chain_tree_and_fused(toy, temperature):
    model, prompt = llama(300, eos=()), PROMPT
    how = dict(max_new_tokens=30, temperature=temperature, seed=5, top_k=40)
    text = decode(Fixed(Draft.chain([])), model, prompt, **how).sequences
    tree, chain = (Branching(text[0].tolist(), 1, chain=chain) for chain in (False, True))
    for drafter in (tree, chain, Fused(chain, Branching(text[0].tolist(), 2))):
        out = decode(drafter, model, prompt, **how)
        assert torch.equal(out.sequences, text)
        assert out.stats["num_accepted_draft_tokens"] > 0


def test_rows_of_a_ragged_batch_are_those_of_single_runs():
    model = model_of("llama")
    prompts = [PROMPT[:3], PROMPT, PROMPT[2:7]]
    drafter = Fixed(Draft([7, 8, 9], [-1, -1, 0]))
    out = decode(drafter, model, prompts, max_new_tokens=9)
    wanted = Verifier(model).generate(prompts, max_new_tokens=9).sequences
    assert torch.equal(out.sequences, wanted)


def test_a_step_tells_the_tree_and_the_nodes_that_stand():
    model = model_of("llama")
    text = plain(model, 9)[len(PROMPT) :]
    wrong = [(text[0] + 1) % 300, (text[1] + 1) % 300]
    tree = Draft([wrong[0], text[0], wrong[1], text[1]], [-1, -1, 1, 1])
    steps = []
    out = decode(Fixed(tree), model, PROMPT, max_new_tokens=9, on_step=steps.append)
    first = steps[0]
    assert (first.draft, first.parent, first.path) == (tree.token, tree.parent, (1, 3))
    assert (first.accepted, first.written) == (2, tuple(text[:3]))
    assert out.stats["acceptance_histogram"][2] >= 1


def test_the_parts_of_a_tree():
    tree = Draft([7, 8, 9, 7, 5], [-1, -1, 0, 2, 1], [-0.1, -0.2, -0.3, -0.4, -0.5])
    assert tree.depth == [0, 0, 1, 2, 1]
    assert tree.paths() == [[7, 9, 7], [8, 5]]
    assert tree.cut(2) == Draft([7, 8, 9, 5], [-1, -1, 0, 1], [-0.1, -0.2, -0.3, -0.5])
    assert tree.cut(3) is tree
    assert tree.first_chain() == Draft.chain([7, 9, 7], [-0.1, -0.3, -0.4])
    assert Draft.joined([[7, 9], [8, 5], [7, 9, 7], []]) == Draft(
        [7, 9, 8, 5, 7], [-1, 0, -1, 2, 1]
    )
    assert Draft.joined([]) == Draft.chain([]) and Draft.chain([]).paths() == []


def test_a_causal_drafters_cache_survives_trees():
    model = model_of("llama")
    out = decode(CausalDrafter(model), model, PROMPT, max_new_tokens=12, draft_length=3)
    assert out.sequences.tolist() == [plain(model, 12)]
