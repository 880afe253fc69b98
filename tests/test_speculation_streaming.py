"""What is seen of a text while it is written, in drafts that are trees."""

import pytest
from fuzz_speculate import verifier
from test_speculation_trees import PROMPT, Branching, plain
from transformers import TextStreamer

from dlmdecode.speculation import PromptLookup
from dlmdecode.speculation import speculate as decode


class Listening:
    def __init__(self):
        self.put_ids, self.ends = [], 0

    def put(self, value):
        self.put_ids.append(value.tolist())

    def end(self):
        self.ends += 1


def test_a_streamer_gets_the_prompt_and_what_each_verification_writes():
    one, seen, steps = verifier("llama"), Listening(), []
    text = plain(one.model, 40)
    drafter = Branching(text, 2)
    how = dict(max_new_tokens=40, draft_length=6, on_step=steps.append)
    out = decode(drafter, one, PROMPT, streamer=seen, **how)
    prompt, *written = seen.put_ids
    assert prompt == [PROMPT.tolist()] and seen.ends == 1
    assert written == [list(step.written) for step in steps]
    assert sum(written, []) == out.sequences[0, len(PROMPT) :].tolist() == text[len(PROMPT) :]
    assert any(step.path != tuple(range(step.accepted)) for step in steps)


@pytest.mark.parametrize("cut", [3, 11, 24])
def test_a_stop_string_within_a_tree_ends_text_and_stream(cut):
    one, seen = verifier("llama"), Listening()
    text = plain(one.model, 40)
    stop = one.tokenizer.decode(text[len(PROMPT) + cut])
    wanted = plain(one.model, 40, stop_strings=[stop], tokenizer=one.tokenizer)
    how = dict(max_new_tokens=40, draft_length=12, stop_strings=[stop], streamer=seen)
    out = decode(Branching(text, 3), one, PROMPT, **how)
    assert out.sequences.tolist() == [wanted]
    assert sum(seen.put_ids[1:], []) == wanted[len(PROMPT) :]


def test_a_streamer_is_ended_where_a_run_breaks():
    def broken(step):
        raise RuntimeError("enough")

    seen = Listening()
    with pytest.raises(RuntimeError, match="enough"):
        decode(
            PromptLookup(),
            verifier("llama"),
            PROMPT,
            max_new_tokens=9,
            streamer=seen,
            on_step=broken,
        )
    assert seen.ends == 1 and len(seen.put_ids) == 2


def test_what_is_no_streamer_or_has_two_prompts_is_refused():
    one = verifier("llama")
    with pytest.raises(ValueError, match=r"streamer=3: give an object with put"):
        decode(PromptLookup(), one, PROMPT, max_new_tokens=9, streamer=3)
    with pytest.raises(ValueError, match=r"streamer=<class .*: give an object with put"):
        decode(PromptLookup(), one, PROMPT, max_new_tokens=9, streamer=TextStreamer)
    with pytest.raises(ValueError, match="a streamer takes a single prompt"):
        decode(
            PromptLookup(),
            one,
            [PROMPT, PROMPT],
            max_new_tokens=9,
            streamer=Listening(),
        )


@pytest.mark.parametrize(
    "bad", [{"prompt": b"x"}, {"temperature": -1}, {"drafter": "nope"}, {"on_step": 3}, {"no": 1}]
)
def test_a_streamer_is_ended_whatever_is_refused(bad):
    ended = []

    class Streamer:
        def put(self, ids):
            raise AssertionError("nothing is written")

        def end(self):
            ended.append(self)

    given = {
        "drafter": "lookup",
        "verifier": verifier("llama"),
        "prompt": PROMPT,
        "streamer": Streamer(),
    }
    with pytest.raises((ValueError, TypeError, FileNotFoundError)):
        decode(**given | bad)
    assert len(ended) == 1
