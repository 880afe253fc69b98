"""`dlmdecode speculate` and `dlmdecode ngram build`."""

import json

import pytest
from speculation_toys import TEXT, byte_level, llama
from test_cli import Terminal

from dlmdecode.commands.cli import main
from dlmdecode.commands.speculate import Progress
from dlmdecode.speculation import NGram, Step
from dlmdecode.speculation.diffuspec.counting import build as count
from dlmdecode.speculation.diffuspec.ngram import fingerprint


@pytest.fixture
def folders(tmp_path):
    """A micro pair on disk with one tokenizer: the drafter's folder, the verifier's folder."""
    from shutil import copytree

    from speculation_toys import MODELS

    tokenizer = byte_level(300)
    drafter, verifier = tmp_path / "drafter", tmp_path / "verifier"
    copytree(MODELS / "llada-micro", drafter)
    llama(300, eos=(0,)).save_pretrained(verifier)
    for folder in (drafter, verifier):
        tokenizer.save_pretrained(folder)
    return str(drafter), str(verifier)


def command(folders, *more):
    drafter, verifier = folders
    pair = ["--drafter", drafter, "--verifier", verifier]
    return ["speculate", TEXT[0], *pair, "--max-new-tokens", "6", "--draft-length", "4", *more]


def test_speculate_shows_each_step_then_text_and_totals(folders, capsys):
    assert main(command(folders)) == 0
    out = capsys.readouterr().out
    assert out.lstrip().startswith("1")
    assert "-[" in out and "+[" in out
    assert "6 tokens in" in out and "forwards of the verifier" in out


def test_quiet_and_json_print_the_same_text(folders, capsys):
    assert main(command(folders, "--quiet")) == 0
    quiet = capsys.readouterr().out
    assert main(command(folders, "--json")) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["text"] == quiet.removesuffix("\n")
    assert record["stats"]["new_tokens"] == 6 and record["stats"]["lossless"]
    assert main(command(folders, "--acceptance", "typical")) == 0
    assert "the text may be another than the verifier's own" in capsys.readouterr().out


def test_a_built_ngram_guides_the_drafts(folders, tmp_path, capsys):
    corpus, output = tmp_path / "corpus.txt", tmp_path / "proxy.safetensors"
    corpus.write_text("\n".join(TEXT) + "\n\n")
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"text": "A bag of stones."}) + "\n")
    build = ["ngram", "build", str(corpus), str(more), "--tokenizer", folders[0], "--output"]
    assert main([*build, str(output)]) == 0
    assert capsys.readouterr().out.startswith("3 texts")
    model, tokenizer = NGram.load(output), byte_level(300)
    assert (model.order, model.tokenizer) == (3, fingerprint(tokenizer))
    assert main(command(folders, "--proxy", str(output))) == 0


def test_an_ngram_that_cannot_be_kept_is_not_counted(folders, tmp_path, capsys):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(TEXT))
    build = ["ngram", "build", str(corpus), "--tokenizer", folders[0], "--output"]
    for output in ("none/x.safetensors", "x.bin", "."):
        assert main([*build, str(tmp_path / output)]) == 2
        assert "give a .safetensors file in a folder that exists" in capsys.readouterr().err
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(OSError, match="cannot write"):
        count([[1, 2, 3]], 10).save(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "more, message",
    [
        (["--proxy", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--draft-length", "long"], "draft_length='long'"),
        (["--max-new-tokens", "9999"], "256 positions"),
        (["--temperature", "-1"], "temperature=-1.0"),
    ],
)
def test_mistakes_are_one_line(folders, more, message, capsys):
    assert main(command(folders, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dlmdecode: error: ") and message in error


def test_colours_mark_accepted_own_and_rejected_tokens(monkeypatch):
    tokenizer = byte_level(300)
    ids = tokenizer("one two")["input_ids"]
    path = tuple(range(len(ids)))
    step = Step(0, 1, 5, (*ids, ids[0]), len(ids), (*ids, ids[-1]), (-1, *path), path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    Progress(tokenizer, screen).show(step)
    count, rest = f"  1  {len(ids):2} of {len(ids) + 1:2}  ", tokenizer.decode([ids[0]])
    own = tokenizer.decode([ids[-1]])
    assert screen.getvalue() == (
        f"{count}\033[32mone two\033[0m\033[1m{own}\033[0m\033[9;31m{rest}\033[0m\n"
    )
