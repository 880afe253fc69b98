"""KenLM files as proxies (`pip install kenlm`), on an ARPA file small enough to score by hand."""

import sys
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speculation_toys import byte_level

from dlmdecode.speculation.diffuspec.lattice import TopM
from dlmdecode.speculation.diffuspec.ngram import BEGIN
from dlmdecode.speculation.diffuspec.path_search import PathSearch
from dlmdecode.speculation.diffuspec.proxies import KenLM, resolve_proxy

ARPA = r"""\data\
ngram 1=5
ngram 2=4
ngram 3=1

\1-grams:
-99	<s>	-0.30
-0.9	</s>
-1.2	<unk>
-0.5	a	-0.25
-0.6	b	-0.15

\2-grams:
-0.2	<s> a	-0.1
-0.3	a b	-0.05
-0.7	b a	0
-0.4	b </s>

\3-grams:
-0.11	<s> a b

\end\
"""


@pytest.fixture
def drafter():
    return SimpleNamespace(tokenizer=byte_level(300))


@pytest.fixture
def proxy(tmp_path, drafter):
    pytest.importorskip("kenlm")
    file = tmp_path / "proxy.arpa"
    file.write_text(ARPA)
    return resolve_proxy(str(file), drafter.tokenizer)


def ids_of(drafter):
    """Ids of a, b, a token the file does not know, and EOS."""
    words = drafter.tokenizer
    return [*words.convert_tokens_to_ids(["a", "b", "z"]), words.eos_token_id]


def test_scores_are_the_files_in_natural_logarithms(proxy, drafter):
    a, b, z, eos = ids_of(drafter)
    by_hand = {
        (BEGIN, BEGIN): [-0.2, -0.30 - 0.6, -0.30 - 1.2, -0.30 - 0.9],
        (BEGIN, a): [-0.1 - 0.25 - 0.5, -0.11, -0.1 - 0.25 - 1.2, -0.1 - 0.25 - 0.9],
        (a, b): [-0.05 - 0.7, -0.05 - 0.15 - 0.6, -0.05 - 0.15 - 1.2, -0.05 - 0.4],
        (z, z): [-0.5, -0.6, -1.2, -0.9],
    }
    assert proxy.order == 3
    scores = proxy.log_prob(np.array(list(by_hand)), np.array([a, b, z, eos]))
    assert scores == pytest.approx(np.array(list(by_hand.values())) * log(10), abs=1e-5)


def test_it_guides_the_search(proxy, drafter):
    a, b, z, eos = ids_of(drafter)
    ids = torch.tensor([[z, a], [z, b]])
    top = TopM(ids, torch.tensor([[0.5, 0.4], [0.5, 0.4]]).log())
    assert PathSearch(mass=1.0)(top, [b], proxy, (eos,)) == [a, b]
    assert PathSearch(mass=1.0, lam=1.0)(top, [b], proxy, (eos,)) == [z, z]


def test_what_is_no_file_of_kenlms_is_an_error(tmp_path, drafter):
    pytest.importorskip("kenlm")
    with pytest.raises(FileNotFoundError, match="nowhere.arpa"):
        resolve_proxy(tmp_path / "nowhere.arpa", drafter.tokenizer)
    (tmp_path / "empty.arpa").write_text("nothing\n")
    with pytest.raises(OSError):
        resolve_proxy(tmp_path / "empty.arpa", drafter.tokenizer)
    (tmp_path / "proxy.arpa").write_text(ARPA)
    with pytest.raises(ValueError, match="the drafter has no tokenizer"):
        resolve_proxy(tmp_path / "proxy.arpa", None)


def test_without_the_package_the_error_says_what_to_install(monkeypatch, drafter):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ValueError, match="pip install kenlm"):
        KenLM("proxy.arpa", drafter.tokenizer)
