"""Drafts without a model: what stood in texts, and what the verifier thought likely before."""

import random
from itertools import combinations
from math import exp, log

import pytest
import torch
from speculation_toys import llama, micro

from dlmdecode.speculation import DiffusionDrafter, Draft, Drafter, Observation, TopM, Verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.drafters import (
    Fused,
    Hierarchy,
    LogitSpec,
    ObservedNGrams,
    PromptLookup,
    Recycling,
    Suffix,
    Switch,
    resolve_drafter,
)
from dlmdecode.speculation.drafters.recycling import LOG
from dlmdecode.speculation.retrieval.automaton import Follower, SuffixAutomaton
from dlmdecode.speculation.retrieval.growing import best_first

PROMPT = torch.tensor([5, 90, 33, 7, 61, 5, 12])
NAMED = [
    "suffix",
    "suffix,keep=true,factor=1,most=6",
    "recycling,nodes=12",
    "ngram,keep=true",
    "logitspec",
    "hierarchy",
    "fused,first=recycling;nodes=10,second=suffix",
    "switch,drafter=ngram;nodes=8,at_least=2",
]


@pytest.mark.parametrize("rule", [{}, {"temperature": 0.8, "seed": 3}], ids=str)
@pytest.mark.parametrize("spec", NAMED)
def test_a_drafter_by_name_writes_the_verifiers_text(spec, rule):
    model, prompts = llama(spread=0.2), [PROMPT, PROMPT[:3]]
    out = decode(spec, model, prompts, max_new_tokens=24, **rule)
    alone = decode(PromptLookup(), model, prompts, max_new_tokens=24, draft_length=0, **rule)
    assert torch.equal(out.sequences, alone.sequences)
    if not rule:
        assert torch.equal(out.sequences, Verifier(model).generate(prompts, 24).sequences)
        assert out.stats["num_accepted_draft_tokens"] > 0


def searched(ids, text):
    """The longest end of `text` that ends before the end of `ids`, and where it can end."""
    for size in range(len(text), 0, -1):
        ends = [at for at in range(size, len(ids)) if ids[at - size : at] == text[-size:]]
        if ends:
            return size, ends
    return 0, []


@pytest.mark.parametrize("letters", [2, 3, 4])
def test_the_automaton_finds_what_a_quadratic_search_finds(letters):
    choice = random.Random(letters)
    for _ in range(6):
        own, ids = SuffixAutomaton(), []
        for _ in range(90):
            ids.append(choice.randrange(letters))
            own.add(ids[-1])
            length, ends = searched(ids, ids)
            found, end = own.repeated()
            assert found == length and (not length or end in ends)


def test_another_text_is_followed_as_a_quadratic_search_would():
    choice = random.Random(0)
    other = [choice.randrange(3) for _ in range(70)]
    follower, text = Follower(SuffixAutomaton(other)), []
    for _ in range(120):
        text.append(choice.randrange(4))
        follower.add(text[-1])
        length, ends = searched([*other, -1], text)
        assert follower.length == length and (not length or follower.end in ends)


def test_a_suffix_drafts_more_behind_a_longer_match():
    drafter = Suffix()
    text = [*range(40), 90, 3, 4]
    assert drafter.draft([*text[:-1]], 30) == [4, 5, 6, 7]
    assert drafter.draft(text, 30) == [5, 6, 7, 8, 9, 10]
    assert drafter.matched == 2
    assert drafter.draft(text, 3) == [5, 6, 7]
    assert drafter.draft([99, 98], 3) == [] and drafter.matched == 0


def test_other_texts_are_looked_up_where_their_match_is_longer():
    texts = [[1, 2, 3, 4, 5, 6, 7, 8], [50, 51]]
    drafter = Suffix(texts)
    assert drafter.draft([1, 2, 3, 4, 5, 6], 9) == [7, 8]  # and nothing of the next text
    assert drafter.draft([4, 5, 6], 9) == []
    keeping = Suffix(keep=True)
    for text in texts:
        keeping.draft(text[:-2], 4)
        keeping.finish(text)
        keeping.reset()
    assert keeping.draft([1, 2, 3, 4, 5, 6], 9) == [7, 8]


def test_a_text_is_remembered_whole_and_once():
    verifier = Verifier(llama(64, eos=(63,)))
    for drafter in (Suffix(keep=True), Hierarchy()):
        one, other = (
            decode(drafter, verifier, PROMPT % 64, max_new_tokens=24).stats for _ in range(2)
        )
        assert other["verifier_forwards"] < one["verifier_forwards"] / 2
    drafter = Suffix(keep=True)
    for end in ([4, 5], [4, 6, 7], [4, 6, 8, 9]):  # as a text is that is tokenised anew
        drafter.draft([1, 2, 3, *end], 4)
    assert not drafter.others.ids


def slow_lookup(prefix, length, longest):
    for size in range(min(longest, len(prefix) - 1), 0, -1):
        for start in range(len(prefix) - size - 1, -1, -1):
            if prefix[start : start + size] == prefix[-size:]:
                return prefix[start + size : start + size + length]
    return []


def test_prompt_lookup_finds_what_a_search_from_the_end_finds():
    choice = random.Random(1)
    drafter, ids = PromptLookup(3), []
    for _ in range(300):
        ids.append(choice.randrange(5))
        assert drafter.draft(list(ids), 4) == slow_lookup(ids, 4, 3)


def test_a_hierarchy_asks_the_next_pool_while_it_has_too_few():
    drafter = Hierarchy([[8, 9, 1, 2]], guesses=2, longest=2, most=2)
    assert drafter.draft([8, 9], 5) == Draft.chain([1, 2])
    assert drafter.draft([8, 9, 5, 6, 8, 9], 5) == Draft([5, 6, 1, 2], [-1, 0, -1, 2])
    drafter.finish([8, 9, 5, 6, 8, 9])
    drafter.reset()
    assert drafter.draft([3, 8, 9], 1) == Draft([5, 1], [-1, -1])
    one = Hierarchy([[8, 9, 1, 2]], guesses=1, longest=2)
    assert one.draft([8, 9, 5, 6, 8, 9], 2) == Draft.chain([5, 6])


def seen(text, draft, rows, accepted=(), written=(0,)):
    scores = torch.zeros(len(draft) + 1, 12)
    for row, best in enumerate(rows):
        for rank, token in enumerate(best):
            scores[row, token] = 9.0 - rank
    return Observation(text, draft, scores, list(accepted), list(written))


def test_recycling_draws_the_tree_of_what_was_thought_of():
    drafter = Recycling(nodes=4, depth=2)
    assert len(drafter.draft([3], 9)) == 0
    drafter.observe(seen([3], Draft.chain([4]), [[5, 4], [6, 7]]))
    tree = drafter.draft([1, 3], 9)
    assert tree.token[:3] == (5, 4, 6) and tree.parent[:3] == (-1, -1, 1)
    drafter.observe(seen([3], Draft.chain([]), [[9]]))
    assert drafter.draft([3], 9).token[0] == 9
    drafter.reset()
    assert len(drafter.draft([3], 9)) == 0


def random_tree(choice, letters, paths):
    def path():
        return [choice.randrange(letters) for _ in range(choice.randint(1, 5))]

    tree = Draft.joined([path() for _ in range(paths)])
    return tree.only(tree.depth_first()), [path() for _ in range(paths)]


def test_paths_behind_a_tree_are_joined_to_its_own():
    choice = random.Random(0)
    for _ in range(40):
        tree, paths = random_tree(choice, 3, choice.randint(0, 6))
        assert tree.with_paths(paths) == Draft.joined([*tree.paths(), *paths])
    assert Draft.chain([1, 2], [-0.1, -0.1]).with_paths([]) == Draft.chain([1, 2])


def test_what_is_learnt_is_that_of_row_after_row():
    choice, size = random.Random(1), 9
    generator = torch.Generator().manual_seed(1)
    recycling, ngrams = Recycling(), ObservedNGrams(order=3, candidates=2)
    table, after, text = {}, {}, [4, 8]
    for begun in range(5):
        tree, _ = random_tree(choice, size + 2, 6)  # two ids that the verifier does not know
        before = torch.randn(0 if begun else 1, size, generator=generator)
        scores = torch.randn(len(tree) + 1, size, generator=generator)
        observed = Observation(text, tree, scores, [], [0], 0.0, before)
        recycling.observe(observed)
        ngrams.observe(observed)
        ends = [text[: len(text) - at] for at in range(len(before), -1, -1)]
        for token, parent in zip(tree.token, tree.parent, strict=True):
            ends.append([*ends[len(before) + 1 + parent], token])
        for end, row in zip(ends, [*before, *scores], strict=True):
            table[end[-1]] = row.topk(8).indices.tolist()
            for known in range(3):
                after[tuple(end[-2:][known:])] = row.topk(2).indices.tolist()
        text = [*text, choice.randrange(size)]
    assert {one: recycling.best[one].tolist() for one in table if one < size} == {
        one: best for one, best in table.items() if one < size
    }
    assert recycling.best[size].tolist() == [-1] * 8
    assert {end: tokens for end, (tokens, _) in ngrams.seen.items()} == after


def test_recycling_grows_the_likeliest_tree_of_known_tokens():
    scores = torch.rand(40, 40, generator=torch.Generator().manual_seed(5))
    best = scores.topk(8).indices.tolist()
    for nodes, depth in ((4, 2), (9, 3), (30, 6)):
        drafter = Recycling(nodes, depth)
        drafter.observe(Observation([0], Draft.chain(range(1, 40)), scores, [], [0]))

        def after(path):
            return best[[3, *path][-1]], LOG.tolist()

        assert drafter.draft([3], 9) == best_first(after, depth, nodes)


def test_recycling_of_a_cycle_is_accepted_to_its_depth():
    cycle, drafter = [3, 4, 5, 6], Recycling(depth=5)
    for token, after in zip(cycle, cycle[1:] + cycle[:1], strict=True):
        drafter.observe(seen([token], Draft.chain([]), [[after]]))
    tree, node = drafter.draft([3], 9), -1
    for token in (4, 5, 6, 3, 4):
        node = tree.children[node, token]


def test_a_depth_that_no_tree_has_is_as_good_as_the_deepest():
    deepest, deeper = (Recycling(nodes=6, depth=depth) for depth in (24, 2**53))
    for drafter in (deepest, deeper):
        drafter.observe(seen([4], Draft.chain([]), [[4]]))
    assert deepest.draft([4], 9) == deeper.draft([4], 9)


def test_ngrams_back_off_to_what_is_known():
    drafter = ObservedNGrams(order=3, nodes=3, depth=2, candidates=2)
    drafter.observe(seen([7, 8], Draft([9, 1], [-1, -1]), [[9, 1], [2, 3], [4, 5]]))
    tree = drafter.draft([7, 8], 5)
    assert sorted(tree.token) == [1, 2, 9] and tree.token[0] == 9
    assert drafter.draft([6, 8], 1).token == (9, 1)  # the bigram
    assert drafter.draft([1], 1).token == (4, 5)
    assert drafter.seen[8, 1] == drafter.seen[1,]


def test_an_order_beyond_the_text_keeps_what_the_text_has():
    whole, beyond = (ObservedNGrams(order=order) for order in (4, 2**53))
    for drafter in (whole, beyond):
        drafter.observe(seen([7, 8], Draft.chain([9]), [[9, 1], [2, 3]]))
    assert whole.seen == beyond.seen
    assert beyond.draft([7, 8], 1).token[:2] == (9, 1)


def test_what_was_thought_of_a_prompt_is_recycled():
    before, scores = torch.zeros(2, 9), torch.zeros(1, 9)
    before[0, 5], before[1, 7], scores[0, 3] = 4.0, 4.0, 4.0  # 5 after 1, 7 after 2, 3 after 4
    seen = Observation([8, 1, 2, 4], Draft.chain([]), scores, [], [3], before=before)
    for drafter in (Recycling(depth=1), ObservedNGrams(order=3, depth=1)):
        drafter.observe(seen)
        first = [drafter.draft([8, 1, 2, 4, end], 1).token[:1] for end in (1, 2, 4)]
        assert first == [(5,), (7,), (3,)]
    assert drafter.draft([8, 1], 1).token[0] == 5
    assert set(drafter.seen) == {(), (1,), (2,), (4,), (8, 1), (1, 2), (2, 4)}


def test_logitspec_guesses_the_token_after_the_next_one():
    drafter = LogitSpec(nodes=6, retrieved=2)
    text = [4, 1, 2, 8, 9, 2]
    drafter.observe(seen(text, Draft.chain([]), [[8, 4, 3]], written=[8]))
    tree = drafter.draft([*text, 8], 9)
    assert tree.paths()[0] == [9, 2]  # what followed 2, 8
    assert tree.paths()[1] == [4, 1, 2, 8]  # the second best of the last row, and what followed it
    assert (-1, 8) not in tree.children and len(tree) == 6


def test_best_first_takes_the_subtree_of_the_highest_sum():
    choice = random.Random(2)
    table = {}

    def after(path):
        key = tuple(path)
        if key not in table:
            shares = sorted((choice.random() for _ in range(2)), reverse=True)
            table[key] = range(2), [log(share) for share in shares]
        return table[key]

    for nodes in (1, 3, 5):
        table.clear()
        every = [()]
        for _ in range(3):
            every += [(*path, t) for path in every for t in (0, 1) if (*path, t) not in every]
        score = {(): 1.0}
        for path in every[1:]:
            score[path] = score[path[:-1]] * exp(after(list(path[:-1]))[1][path[-1]])
        whole = [
            sum(score[path] for path in subset)
            for subset in combinations(every[1:], nodes)
            if all(path[:-1] in subset or len(path) == 1 for path in subset)
        ]
        tree = best_first(after, 3, nodes)
        at = [()]
        for token, parent in zip(tree.token, tree.parent, strict=True):
            at.append((*at[parent + 1], token))
        assert sum(score[path] for path in at[1:]) == pytest.approx(max(whole))


class Given(Drafter):
    def __init__(self, given, searched=False):
        self.given, self.searched = given, searched

    def draft(self, prefix, length):
        return self.given


def fused(one, other, most=64):
    drafter = Fused(Given(one, isinstance(one, TopM)), Given(other), most)
    best = lambda given: Draft.chain(given.ids[:, 0])  # noqa: E731
    drafter.read_with(lambda given, _: best(given) if isinstance(given, TopM) else given)
    return drafter.draft([1], 9)


def test_fused_drafts_are_one_tree_with_the_nodes_of_both():
    one, other = Draft([3, 4, 5], [-1, 0, 0]), Draft([4, 3, 4, 6], [-1, -1, 1, 2])
    tree = fused(one, other)
    assert sorted(tree.paths()) == [[3, 4, 6], [3, 5], [4]]
    assert fused(one, other, 3) == Draft([3, 4, 4], [-1, 0, -1])
    lattice = TopM(torch.tensor([[3, 8], [4, 1]]), torch.zeros(2, 2))
    assert fused(lattice, Draft([8, 9], [-1, -1])) == Draft([3, 4, 8], [-1, 0, -1])


def test_parts_may_have_parts_of_their_own():
    nested = Fused(Fused(Recycling(), PromptLookup()), Switch(LogitSpec(), at_least=2))
    out = decode(nested, llama(), PROMPT, max_new_tokens=14)
    assert torch.equal(out.sequences, Verifier(llama()).generate(PROMPT, 14).sequences)


def test_a_switch_saves_the_models_forward_where_the_match_is_long():
    drafter = Switch(Given([7]), at_least=2)
    assert drafter.draft([1, 2, 3, 1], 4) == [7]
    assert drafter.draft([1, 2, 3, 1, 2], 4) == [3, 1, 2]


def test_a_diffusion_model_is_a_part_and_two_models_are_refused():
    model = llama()
    dlm = DiffusionDrafter(micro("dream"))
    for drafter in (Fused(dlm, Suffix()), Switch(dlm, at_least=3)):
        out = decode(drafter, model, PROMPT, max_new_tokens=14, vocabulary="identity")
        assert torch.equal(out.sequences, Verifier(model).generate(PROMPT, 14).sequences)
        assert out.stats["drafter_forwards"] > 0
    with pytest.raises(ValueError, match="drafter=.*'DiffusionDrafter', 'DiffusionDrafter'"):
        Fused(dlm, DiffusionDrafter(micro("llada")))


@pytest.mark.parametrize(
    "spec, message",
    [
        ("suffix,most=0", "^most=0"),
        ("recycling,nodes=0", "^nodes=0"),
        ("ngram,nodes=4097", "^nodes=4097: .* at most 4096"),
        ("ngram,order=0", "^order=0"),
        ("logitspec,retrieved=0", "^retrieved=0"),
        ("hierarchy,guesses=0", "^guesses=0"),
        ("fused,first=suffix", "fused needs second="),
        ("switch,drafter=suffix;most=0", "^most=0"),
    ],
)
def test_options_out_of_range_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve_drafter(spec, 1, 15)
