"""Streaming through transformers' own streamers."""

import asyncio
import subprocess
import sys
from functools import partial
from threading import Thread

import pytest
import torch
from toy import EOS, MASK, MODELS, altered, fond_of, micro, prompts, talking
from transformers import AsyncTextIteratorStreamer, TextIteratorStreamer, TextStreamer

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


def written(recorder):
    """The ids that were put after the prompt."""
    return [id for kind, ids in recorder.calls[1:] if kind == "put" for id in ids]


def test_a_streamer_gets_the_prompt_then_final_text_then_the_end():
    recorder, (prompt,) = Recorder(), prompts(5)
    out = dlmdecode.generate(micro("llada"), prompt, streamer=recorder, **OPTIONS)
    kinds = [kind for kind, _ in recorder.calls]
    assert recorder.calls[0] == ("put", [prompt.tolist()])
    assert kinds[-1] == "end"
    assert kinds.count("draft") == out.nfe[0]
    assert written(recorder) == out.sequences[0, 5:].tolist()


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


@pytest.mark.parametrize("sampler", ["vanilla", "dream", "prophet", "wino", "hierarchy"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_streamed_is_the_result_for_every_sampler(sampler, seed):
    recorder, options = Recorder(), dict(max_new_tokens=16, block_length=8, sampler=sampler)
    if sampler == "wino":  # it takes tokens back
        options |= dict(threshold=0.05, threshold_back=0.9)
    (prompt,) = prompts(5, seed=seed)
    out = dlmdecode.generate(micro("llada"), prompt, streamer=recorder, **options)
    end = out.new_tokens[0]
    assert written(recorder)[:end] == out.sequences[0, 5 : 5 + end].tolist()


@pytest.mark.parametrize("eos", ["stop", "ignore"])
@pytest.mark.parametrize("sampler", ["threshold", "dream"])
def test_streamed_text_ends_with_its_first_eos(eos, sampler):
    recorder, fond = Recorder(), fond_of(micro("llada"), EOS, 9.0)
    options = dict(max_new_tokens=16, block_length=8, sampler=sampler, eos=eos)
    out = dlmdecode.generate(fond, prompts(5), streamer=recorder, **options)
    end = out.new_tokens[0]
    assert end < 16
    assert written(recorder) == [*out.sequences[0, 5 : 5 + end].tolist(), EOS]


BROKEN = altered(micro("llada"), lambda logits: logits * torch.nan)
FAILURES = {
    "a bad argument": ({"temperature": -1}, ValueError),
    "an unknown option": ({"bar": 1}, TypeError),
    "two prompts": ({"prompt": prompts(3, 4)}, ValueError),
    "a model that breaks": ({"model": BROKEN}, FloatingPointError),
    "a step function that breaks": ({"on_step": lambda step: 1 / 0}, ZeroDivisionError),
}


@pytest.mark.parametrize("what, error", FAILURES.values(), ids=FAILURES)
def test_a_streamer_is_ended_once_whatever_happens(what, error):
    recorder = Recorder()
    call = {"model": micro("llada"), "prompt": prompts(5), "streamer": recorder} | OPTIONS | what
    with pytest.raises(error):
        dlmdecode.generate(**call)
    assert [kind for kind, _ in recorder.calls].count("end") == 1
    assert recorder.calls[-1][0] == "end"


def test_a_reader_in_another_thread_does_not_wait_for_a_call_that_failed():
    streamer = TextIteratorStreamer(talking().tokenizer, skip_prompt=True, timeout=30)
    with pytest.raises(ValueError):
        dlmdecode.generate(talking(), "w1", streamer=streamer, max_new_tokens=0)
    assert "".join(streamer) == ""


def test_transformers_asynchronous_streamer_yields_the_text():
    async def read():
        streamer = AsyncTextIteratorStreamer(
            talking().tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=30
        )
        call = partial(dlmdecode.generate, talking(), "w1 w2 w3", streamer=streamer, **OPTIONS)
        run = asyncio.get_running_loop().run_in_executor(None, call)
        text = "".join([piece async for piece in streamer])
        return text, (await run).texts[0]

    streamed, text = asyncio.run(read())
    assert streamed.split() == text.split() and text


def test_a_stream_that_is_left_prints_nothing_at_the_end_of_the_program():
    code = f"""
import dlmdecode, torch
model = dlmdecode.load({str(MODELS / "llada-micro")!r}, device="cpu")
kept = dlmdecode.stream(model, torch.arange(5), max_new_tokens=16)
next(kept)
assert not torch.is_inference_mode_enabled()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


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
