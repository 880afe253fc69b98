"""N-grams: probabilities that sum to one, back-off, files, the hash that C++ repeats."""

from itertools import product
from math import exp, isclose, log
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmdecode.speculation.diffuspec.counting import build
from dlmdecode.speculation.diffuspec.ngram import BEGIN, NGram, OnlineNGram

texts = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=6)


def scores(model, context, size):
    row = np.array([context], dtype=np.int64).reshape(1, -1)
    return model.log_prob(row, np.arange(size))[0]


@given(texts, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_kneser_ney_probabilities_sum_to_one_after_every_context(rows, order):
    model = build(rows, vocab_size=5, order=order)
    contexts = list(product(range(BEGIN, 5), repeat=order - 1))[:50]
    for context in contexts:
        total = np.exp(scores(model, context, 5)).sum()
        assert abs(float(total) - 1) < 1e-4, (context, float(total))


@given(texts)
@settings(max_examples=30, deadline=None)
def test_stupid_scores_of_known_trigrams_are_relative_frequencies(rows):
    model = build(rows, vocab_size=5, order=3, smoothing="stupid")
    padded = [[BEGIN, BEGIN, *row] for row in rows]
    grams = [tuple(row[i : i + 3]) for row in padded for i in range(len(row) - 2)]
    for gram in set(grams):
        among = [other for other in grams if other[:2] == gram[:2]]
        wanted = log(grams.count(gram) / len(among))
        assert isclose(scores(model, gram[:2], 5)[gram[2]], wanted, abs_tol=1e-5)


def test_stupid_backs_off_with_weight_four_tenths_from_known_contexts_only():
    model = build([[0, 1, 2, 0, 1, 3]], vocab_size=10, order=3, smoothing="stupid")
    after = np.exp(scores(model, (0, 1), 10))
    assert after[2] == pytest.approx(0.5)
    assert after[0] == pytest.approx(0.4 * 0.4 * 2 / 6)  # 1 0 and 0 1 0 unseen, both contexts known
    assert after[9] == pytest.approx(0.4 * 0.4 * 0.4 / 10)
    assert exp(scores(model, (7, 2), 10)[0]) == pytest.approx(1.0)  # 7 2 never seen: 2 -> 0
    assert exp(scores(model, (7, 8), 10)[0]) == pytest.approx(2 / 6)


def test_kneser_ney_by_hand():
    model = build([[0, 1], [0, 2], [3, 1]], vocab_size=5, order=2)
    # bigrams ^0 x2, ^3, 01, 02, 31: discount 4 / (4 + 2); continuations 0: ^, 1: 0 3, 2: 0, 3: ^
    lower = 3 / (3 + 2)
    unigram = {t: ((c - lower) + lower * 4 / 5) / 5 for t, c in {0: 1, 1: 2, 2: 1, 3: 1}.items()}
    wanted = (1 - 4 / 6) / 2 + 4 / 6 * 2 / 2 * unigram[1]
    assert exp(scores(model, (0,), 5)[1]) == pytest.approx(wanted, rel=1e-5)
    assert exp(scores(model, (0,), 5)[4]) == pytest.approx(4 / 6 * lower * 4 / 5 / 5, rel=1e-5)


def test_a_saved_file_scores_the_same_and_is_mapped_into_memory(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 50, (20, 30), generator=generator).tolist()
    model = build(rows, vocab_size=50, tokenizer="abc")
    model.save(tmp_path / "proxy.safetensors")
    again = NGram.load(tmp_path / "proxy.safetensors")
    context = torch.randint(0, 50, (100, 2), generator=generator).numpy()
    token = torch.randint(0, 60, (100,), generator=generator).numpy()
    assert np.array_equal(again.log_prob(context, token), model.log_prob(context, token))
    assert (again.order, again.floor, again.tokenizer) == (3, model.floor, "abc")
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(tmp_path / "proxy.safetensors") in maps.read_text()


def test_keys_are_the_documented_hash():
    def chain(ids):
        word, total = (1 << 64) - 1, 0
        for one in ids:
            z = (total + one + 0x9E3779B97F4A7C15) & word
            z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & word
            z = ((z ^ z >> 27) * 0x94D049BB133111EB) & word
            total = z ^ z >> 31
        return total - (1 << 64) if total >> 63 else total

    model = build([[7, 8, 9]], vocab_size=10, order=3)
    grams = [(BEGIN, BEGIN, 7), (BEGIN, 7, 8), (7, 8, 9)]
    assert model.orders[2].key.tolist() == sorted(map(chain, grams))
    assert model.orders[2].context.tolist() == sorted(chain(gram[:2]) for gram in grams)
    assert model.orders[0].key.tolist() == sorted(chain(gram[2:]) for gram in grams)


def test_the_online_model_learns_from_the_text_and_nothing_else():
    proxy = OnlineNGram(order=3, vocab_size=10)
    repeated = scores(proxy.at([1, 2, 3, 1, 2]), (1, 2), 10)
    assert repeated.argmax() == 3
    assert scores(proxy.at([4, 5]), (1, 2), 10)[3] < repeated[3]


@given(texts, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_the_online_models_one_table_scores_as_one_per_order_does(rows, order):
    online = OnlineNGram(order, vocab_size=5).at(rows[0])
    apart = build(rows[:1], vocab_size=5, order=order, smoothing="stupid")
    for context in list(product(range(BEGIN, 5), repeat=order - 1))[:50]:
        assert np.array_equal(scores(online, context, 5), scores(apart, context, 5))


@pytest.mark.parametrize(
    "content", [b"", b"not a file of ours", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_foreign_file_is_refused_with_the_way_to_make_one(tmp_path, content):
    (tmp_path / "proxy").write_bytes(content)
    with pytest.raises(ValueError, match="dlmdecode ngram build"):
        NGram.load(tmp_path / "proxy")


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"texts": []}, "texts"),
        ({"texts": [[]]}, "texts"),
        ({"texts": [[1]], "order": 0}, "order"),
        ({"texts": [[1]], "smoothing": "witten_bell"}, "smoothing"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        build(vocab_size=5, **arguments)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        NGram.load("nowhere.safetensors")
