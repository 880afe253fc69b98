"""`--corpus`: texts in files that drafters look up."""

import json

import numpy as np
import pytest
import torch
from speculation_toys import llama
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dlmdecode.commands.cli import main
from dlmdecode.commands.corpus import read_texts
from dlmdecode.speculation import Verifier
from dlmdecode.speculation.drafters import Hierarchy, Suffix, resolve_drafter

PROMPT = "w5 w90 w33 w7 w61 w8 w12 w40"
LOOKING = ["suffix", "hierarchy", "fused,first=recycling,second=suffix", "switch,drafter=recycling"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A verifier on disk, each of its tokens a word."""
    path = tmp_path_factory.mktemp("verifier")
    llama(300, seed=2, eos=(0,)).save_pretrained(path)
    words().save_pretrained(path)
    return str(path)


def words():
    tokenizer = Tokenizer(models.WordLevel({f"w{n}": n for n in range(300)}, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0", unk_token="w1")


@pytest.fixture(scope="module")
def written():
    """What the verifier writes behind the prompt."""
    verifier = Verifier(llama(300, seed=2, eos=(0,)), words())
    return verifier.generate(PROMPT, max_new_tokens=12).texts[0]


@pytest.fixture
def corpus(tmp_path, written):
    """A line of JSON with the text to come, behind others."""
    path = tmp_path / "corpus.jsonl"
    texts = ["w5 w7", "", f"{PROMPT} {written}"]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n\n")
    return str(path)


def command(folder, drafter, *more):
    pair = ["--drafter", drafter, "--verifier", folder, "--max-new-tokens", "12", "--json"]
    return ["speculate", PROMPT, *pair, *more]


@pytest.mark.parametrize("drafter", LOOKING)
def test_a_corpus_has_more_drafts_accepted_and_the_same_text(
    drafter, folder, corpus, written, tmp_path, capsys
):
    lines = tmp_path / "lines.txt"
    lines.write_text("w61 w9 w9\n\nw12 w8\n")
    counts = []
    for more in ([], ["--corpus", str(lines), "--corpus", corpus]):
        assert main(command(folder, drafter, *more)) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["text"] == written
        counts.append(record["stats"]["verifier_forwards"])
    assert counts[1] < counts[0]


@pytest.mark.parametrize("name", ["texts.jsonl", "texts.txt"])
def test_a_text_may_hold_other_separators_than_line_feeds(name, tmp_path):
    texts = ["a\u2028b", "c\u0085d"]
    shown = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path = tmp_path / name
    path.write_text("\r\n".join(shown if name.endswith("jsonl") else texts), encoding="utf-8")
    assert read_texts([path], "--corpus") == texts


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("nowhere.txt", None, "nowhere.txt"),
        ("empty.txt", b"\n \n", "there is no text in it"),
        ("empty.jsonl", b'{"text": ""}\n', "there is no text in it"),
        ("bytes.txt", b"caf\xe9\n", "bytes.txt': it is not UTF-8"),
        ("half.jsonl", b'{"text": "a"}\n{"text":\n', "half.jsonl line 2': each line is an object"),
        ("other.jsonl", b'{"texts": "a"}\n', "other.jsonl line 1': each line is an object"),
        ("cut.jsonl", b'{"text": "\\ud83d"}\n', "cut.jsonl line 1': it has half of a surrogate"),
    ],
)
def test_a_file_without_texts_is_refused_by_its_name(
    name, content, message, folder, tmp_path, capsys
):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(command(folder, "suffix", "--corpus", str(path))) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dlmdecode: error: ") and message in error


def test_a_corpus_that_no_drafter_looks_up_is_refused(folder, corpus, capsys):
    for drafter in ("lookup", "recycling", "fused,first=recycling,second=ngram"):
        assert main(command(folder, drafter, "--corpus", corpus)) == 2
        error = capsys.readouterr().err
        assert f"--corpus=['{corpus}']: {drafter} looks nothing up in it" in error


def test_texts_read_later_are_as_those_given_at_first():
    texts, prefix = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 8, 7]], [2, 3, 4, 5, 6, 7]
    for kind in (Suffix, Hierarchy):
        later = kind()
        later.draft(prefix, 4)
        later.read_corpus(iter(texts))
        assert later.draft(prefix, 4) == kind(texts).draft(prefix, 4)
    both = resolve_drafter("fused,first=suffix,second=hierarchy", 1, 15)
    both.read_corpus(iter(texts))
    assert [part.draft(prefix, 2) for part in both.parts][0] == [8, 9]
    assert both.parts[1].draft(prefix, 2).paths() == [[8, 9]]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple])
def test_texts_are_ids_of_any_library(kind):
    for drafter in (Suffix, Hierarchy):
        text, prefix = list(range(1, 12)), list(range(1, 9))
        mine, other = drafter([kind(text)]), drafter([text])
        found = mine.draft(prefix, 2)
        assert found == other.draft(prefix, 2)
        assert type((found if drafter is Suffix else found.token)[0]) is int


@pytest.mark.parametrize("text", ["a text", ["a"], [1.5], [-1], [True], 3])
def test_a_text_that_is_no_ids_is_refused(text):
    for drafter in (Suffix, Hierarchy):
        with pytest.raises(ValueError, match="texts=.*give token ids"):
            drafter([text])
