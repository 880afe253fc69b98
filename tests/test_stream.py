"""Streaming through transformers' own streamers."""

from threading import Thread

import pytest
import torch
from toy import EOS, MASK, fond_of, micro, prompts, talking
from transformers import TextIteratorStreamer, TextStreamer

import dlmdecode

OPTIONS = dict(max_new_tokens=16, block_length=8, sampler="threshold", threshold=0.3)


class Recorder:
    """Writes down what it is given; knows drafts."""

    def __init__(self):
        self.calls = []

    def put(self, value):
        self.calls.append(("put", value.tolist()))

    def put_draft(self, value):
        self.calls.append(("draft", value.tolist()))

    def end(self):
        self.calls.append(("end", None))


def test_a_streamer_gets_the_prompt_then_final_text_then_the_end():
    recorder, (prompt,) = Recorder(), prompts(5)
    out = dlmdecode.generate(micro("llada"), prompt, streamer=recorder, **OPTIONS)
    kinds = [kind for kind, _ in recorder.calls]
    assert recorder.calls[0] == ("put", [prompt.tolist()])
    assert kinds[-1] == "end"
    assert kinds.count("draft") == out.nfe[0]
    written = [id for kind, ids in recorder.calls[1:] if kind == "put" for id in ids]
    assert written == out.sequences[0, 5:].tolist()


def test_drafts_show_the_canvas_with_its_masks():
    recorder = Recorder()
    out = dlmdecode.generate(micro("llada"), prompts(5), streamer=recorder, **OPTIONS)
    drafts = [ids[0] for kind, ids in recorder.calls if kind == "draft"]
    assert MASK in drafts[0]
    assert drafts[-1] == out.sequences[0, 5:].tolist()
    assert all(len(draft) == 16 for draft in drafts)


def test_text_that_was_streamed_is_never_taken_back():
    recorder = Recorder()
    dlmdecode.generate(micro("llada"), prompts(5), streamer=recorder, **OPTIONS)
    streamed = []
    for kind, ids in recorder.calls[1:]:
        if kind == "put":
            streamed += ids
        elif kind == "draft":
            assert ids[0][: len(streamed)] == streamed
            assert MASK not in streamed


def test_transformers_text_streamer_prints_the_text(capsys):
    tokenizer = talking().tokenizer
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    out = dlmdecode.generate(talking(), "w1 w2 w3", streamer=streamer, **OPTIONS)
    assert capsys.readouterr().out.split() == out.texts[0].split()


def test_transformers_iterator_streamer_yields_the_text_from_a_thread():
    streamer = TextIteratorStreamer(talking().tokenizer, skip_prompt=True, timeout=30)
    run = Thread(
        target=dlmdecode.generate,
        args=(talking(), "w1 w2 w3"),
        kwargs=OPTIONS | {"streamer": streamer},
    )
    run.start()
    text = "".join(streamer)
    run.join()
    assert text.split() == dlmdecode.generate(talking(), "w1 w2 w3", **OPTIONS).texts[0].split()


@pytest.mark.parametrize("sampler", ["vanilla", "dream", "prophet"])
def test_what_is_streamed_is_the_result_for_every_sampler(sampler):
    recorder, options = Recorder(), dict(max_new_tokens=16, block_length=8, sampler=sampler)
    out = dlmdecode.generate(micro("dream"), prompts(5), streamer=recorder, **options)
    written = [id for kind, ids in recorder.calls[1:] if kind == "put" for id in ids]
    assert written == out.sequences[0, 5:].tolist()


def test_a_text_that_ends_early_is_streamed_with_its_eos_tail():
    recorder = Recorder()
    out = dlmdecode.generate(
        fond_of(micro("llada"), EOS, 8.0), prompts(5), streamer=recorder, **OPTIONS
    )
    written = [id for kind, ids in recorder.calls[1:] if kind == "put" for id in ids]
    assert written == out.sequences[0, 5:].tolist()
    assert EOS in written


def test_a_streamer_takes_one_prompt_only():
    with pytest.raises(ValueError, match="streamer=.*single prompt"):
        dlmdecode.generate(micro("llada"), prompts(3, 4), streamer=Recorder(), **OPTIONS)


@pytest.mark.parametrize("name", ["streamer", "on_step", "trace"])
def test_stream_refuses_what_belongs_to_generate(name):
    with pytest.raises(ValueError, match=f"{name}=.*belongs to generate"):
        dlmdecode.stream(micro("llada"), prompts(3), **{name: True})


def test_steps_of_a_stream_do_not_change_afterwards():
    steps = list(dlmdecode.stream(micro("llada"), prompts(5), **OPTIONS))
    masks = [int((step.sequences == MASK).sum()) for step in steps]
    assert masks == sorted(masks, reverse=True)
    assert masks[0] > masks[-1] == 0
    assert not torch.equal(steps[0].sequences, steps[-1].sequences)
