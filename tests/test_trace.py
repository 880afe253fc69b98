"""A run on disk: who wrote what and when, read back as it was, after a crash too."""

import json
from collections import Counter

import numpy as np
import pytest
from toy import MASK, micro, prompts

import dlmdecode
from dlmdecode.speculation import list_drafters, load_verifier, speculate
from dlmdecode.trace import read
from dlmdecode.trace.reasons import reason
from dlmdecode.trace.steps import LEVELS
from dlmdecode.trace.view import verifying

SMALL = {"max_new_tokens": 16, "block_length": 8}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


def texts(run, start=None):
    """The text of each row that the writes of a run add up to."""
    rows = [[MASK] * row["length"] for row in run.header["rows"]]
    for step in run.steps:
        for name in ("given", "writes"):
            columns = (step[name].get(key, ()) for key in ("row", "position", "token"))
            for row, position, token in zip(*columns, strict=True):
                rows[row][position] = token
    return rows


@pytest.mark.parametrize("sampler", ["vanilla", "wino", "freedave", "prophet", "edit", "dsb"])
def test_the_writes_of_a_run_add_up_to_its_texts(path, sampler):
    batch = prompts(5, 9, 7)
    out = dlmdecode.generate(
        micro("llada"), batch, sampler, max_new_tokens=16, trace=path, batch_size=2
    )
    (run,) = read(path)
    ends = [out.sequences[i, len(p) : len(p) + 16].tolist() for i, p in enumerate(batch)]
    assert texts(run) == ends
    assert run.end["nfe"] == out.nfe and run.header["sampler"] == sampler
    assert [step["step"] for step in run.steps] == list(range(1, len(run.steps) + 1))


def test_a_trace_changes_no_text(path):
    plain = dlmdecode.generate(micro("llada"), prompts(5, 9), "credit+prophet", **SMALL)
    traced = dlmdecode.generate(
        micro("llada"), prompts(5, 9), "credit+prophet", trace=path, **SMALL
    )
    assert traced.sequences.tolist() == plain.sequences.tolist() and traced.trace is None


def rules(path):
    return Counter(rule for step in read(path)[-1].steps for rule in step["writes"]["rule"])


def test_each_write_names_the_part_that_is_its_reason(path):
    model = micro("llada")

    def decode(sampler, **options):
        path.unlink(missing_ok=True)
        dlmdecode.generate(model, prompts(5), sampler, eos="ignore", trace=path, **SMALL, **options)
        return rules(path)

    assert decode("threshold", threshold=0.0) == {"Threshold": 16}
    assert decode("threshold", threshold=1.0) == {"MostConfident": 16}
    leap = decode("localleap", threshold=0.9, relaxed=0.3, radius=2)
    assert set(leap) <= {"Anchor", "NearAnchor", "MostConfident"} and leap["NearAnchor"]
    settled = decode("prophet", early=0.0, mid=0.0, late=0.0)
    assert settled == {"TopK": 1, "AnswerSettled": 15}
    assert decode("wino", threshold=0.0, threshold_back=1.0)["NarrowOut"]
    assert decode("freedave", draft_steps=3)["Lookahead"]


def test_of_several_reasons_the_last_change_counts_and_of_its_wishes_the_first():
    trails = {
        (1, True, True, 7): 1,
        (1, False, True, 7): 2,
        (1, False, False, 7): 3,
        (5, True, False, 7): 1,
        (5, False, False, 5): 0,
    }
    done = [np.array(column) for column in zip(*trails, strict=True)]
    assert reason(np.ones(len(trails), dtype=np.int64), done) == list(trails.values())
    assert reason(np.array([1]), [np.array([one]) for one in (1, True, False, 7, 1)]) == [4]


def test_the_end_of_a_text_and_what_stood_there_are_told(path):
    options = {"constraints": {3: 7, 4: 8}, "answer_start": 5, "trace": path}
    dlmdecode.generate(micro("llada"), prompts(5), "prophet", **SMALL, **options)
    (run,) = read(path)
    assert run.steps[0]["given"] == {"row": [0, 0], "position": [3, 4], "token": [7, 8]}
    assert not any(step["given"] for step in run.steps[1:])


def test_confidence_is_a_character_a_position_and_proposals_are_told_once(path):
    model = micro("llada")
    seen = []
    dlmdecode.generate(
        model, prompts(5), "vanilla", trace=path, on_step=seen.append, eos="ignore", **SMALL
    )
    (run,) = read(path)
    drafted = {}
    for step, line in zip(seen, run.steps, strict=True):
        (text,) = line["confidence"]
        prob = step.proposal.prob[0, 5:].numpy()
        known = np.array([c != "." for c in text])
        assert known.sum() == int((step.before[0, 5:] == MASK).numpy()[step_block(line)].sum())
        level = [LEVELS.tobytes().decode().index(c) for c in text if c != "."]
        assert level == (prob[known] * 63 + 0.5).astype(int).tolist()
        drafted |= dict(zip(line["drafts"]["position"], line["drafts"]["token"], strict=True))
        for at in np.nonzero(known)[0].tolist():
            assert drafted[at] == int(step.proposal.token[0, 5 + at])


def step_block(line):
    """Positions that the step computed: a block of eight, before it moved on."""
    first = min(i for i, c in enumerate(line["confidence"][0]) if c != ".") // 8 * 8
    return slice(first, first + 8)


def refreshes(path, family, cache, **options):
    model = micro(family)
    dlmdecode.generate(
        model, prompts(5), "vanilla", cache=cache, trace=path, eos="ignore", **options
    )
    return [step["refreshes"] for step in read(path)[0].steps]


def test_refreshes_of_a_cache_are_counted(path):
    assert refreshes(path, "llada", "dual", **SMALL) == [1] * 8 + [2] * 8


def test_blocks_that_join_the_committed_cache_are_its_refreshes(path):
    block = micro("sdar").block_length
    counts = refreshes(path, "sdar", "block", max_new_tokens=3 * block)
    assert block == 4 and counts == [1] * 3 + [2] * 4 + [3] * 4 + [4]


def test_a_crash_leaves_the_steps_before_it_and_the_next_run_a_line_of_its_own(path):
    def stop(step):
        if step.number == 5:
            raise KeyboardInterrupt

    model = micro("llada")
    with pytest.raises(KeyboardInterrupt):
        dlmdecode.generate(model, prompts(5), "vanilla", trace=path, on_step=stop, **SMALL)
    (run,) = read(path)
    assert len(run.steps) == 4 and run.end is None
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    (run,) = read(path)
    assert len(run.steps) == 3
    dlmdecode.generate(model, prompts(5), "threshold", trace=path, **SMALL)
    first, second = read(path)
    assert len(first.steps) == 3 and second.end["nfe"]


BAD = {
    "nothing": ("", "there is no run in it"),
    "another file": ("a,b\n1,2\n3,4\n", "line 1 is no line of a trace"),
    "another version": ('{"type":"run","version":99}\n', "version=99"),
    "no beginning": ('{"type":"step"}\n', "begins with a line of type run"),
    "broken inside": (
        '{"type":"run","version":1,"kind":"generation","rows":[]}\n{"type"\n{"type":"end"}\n',
        "line 2 is no line of a trace",
    ),
    "a run of nothing": ('{"type":"run","version":1}\n', "line 1 lacks kind or rows"),
}


@pytest.mark.parametrize("text, message", BAD.values(), ids=BAD)
def test_a_file_that_is_no_trace_is_refused(path, text, message):
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_file_that_cannot_be_written_is_an_error_before_any_forward(tmp_path):
    with pytest.raises(OSError):
        dlmdecode.generate(micro("llada"), prompts(5), trace=tmp_path / "no" / "run.jsonl")
    with pytest.raises(ValueError, match="trace=3"):
        dlmdecode.generate(micro("llada"), prompts(5), trace=3)


def test_every_line_is_strict_json(path):
    dlmdecode.generate(micro("dream"), prompts(5), "dream", trace=path, steps=8, **SMALL)
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


@pytest.fixture(scope="module")
def verifier():
    return load_verifier("tiny-ar")


def test_speculation_is_traced_too(path, verifier):
    question = "Tom has 12 apples. He buys 8 more. How many apples does Tom have now?"
    seen = []
    out = speculate(
        "lookup", verifier, question, max_new_tokens=24, trace=path, on_step=seen.append
    )
    (run,) = read(path)
    assert run.header["kind"] == "speculate" and run.end["texts"] == out.texts
    assert [tuple(step["written"]) for step in run.steps] == [step.written for step in out.trace]
    assert [step["path"] for step in run.steps] == [list(step.path) for step in out.trace]
    assert seen == out.trace
    used = {id for step in out.trace for id in (*step.draft, *step.written)}
    assert used == set(run.vocabulary)
    with pytest.raises(ValueError, match="trace=True"):
        speculate("lookup", verifier, question, trace=True)


DRAFTERS = {
    name: "" for name in ("hierarchy", "logitspec", "lookup", "ngram", "recycling", "suffix")
}
DRAFTERS |= {name: ",model=tiny" for name in ("diffusion", "failfast", "threshold")}
DRAFTERS |= {"causal": ",model=tiny-ar", "layerskip": ",model=tiny-ar,layers=1"}
DRAFTERS |= {"fused": ",first=recycling,second=suffix", "switch": ",drafter=ngram"}


def test_every_drafter_is_traced_below():
    assert set(list_drafters()) == set(DRAFTERS)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_drafts_and_what_stands_of_them_are_told_of_every_drafter(path, drafter, verifier):
    questions = ["Tom has 12 apples. He buys 8 more. How many are there now?", "Anna has"]
    spec = drafter + DRAFTERS[drafter]
    out = speculate(spec, verifier, questions, max_new_tokens=16, trace=path)
    (run,) = read(path)
    written = [[], []]
    for step in run.steps:
        node = step["path"]
        assert [step["parent"][i] for i in node] == [-1, *node][: len(node)]
        stands = [step["draft"][i] for i in node]
        assert step["accepted"] == len(stands) and step["written"][: len(stands)] == stands
        assert len(step["written"]) <= len(stands) + 1
        written[step["row"]] += step["written"]
    decode = verifier.tokenizer.decode
    assert [decode(ids, skip_special_tokens=True) for ids in written] == out.texts
    drafted = sum(len(step["draft"]) for step in run.steps)
    assert drafted == out.stats["num_draft_tokens"] > 0
    frames = list(verifying(run, 0))
    accepted = sum(step["accepted"] for step in run.steps if step["row"] == 0)
    rules = [write[2] for frame in frames for write in frame["writes"]]
    assert rules.count("accepted draft") == accepted and len(rules) == len(written[0])
    own = sum(len(step["draft"]) for step in run.steps if step["row"] == 0)
    assert sum(len(frame["rejected"]) for frame in frames) == own - accepted
