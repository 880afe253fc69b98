"""Rows come and go: whenever a prompt is submitted, its text is that of its single run."""

import asyncio
import gc
import threading
import time
from concurrent.futures import CancelledError, wait
from dataclasses import fields

import pytest
import torch
from test_samplers import CHOSEN, WINDOWED, options
from torch import Tensor
from toy import BLOCK_CAUSAL, EOS, altered, counted_forwards, fond_of, micro, prompts

import dlmdecode
from dlmdecode.caches import BlockCache, CommittedCache
from dlmdecode.decoding.canvas import Canvas, Proposal
from dlmdecode.decoding.positions import Scattered, Span

SIZE = dict(max_new_tokens=16, block_length=8)
LENGTHS = (3, 17, 8, 5, 30)


def late(engine, batch, every=3):
    """Their results, each submitted `every` steps after the one before."""
    requests = []
    for prompt in batch:
        requests.append(engine.submit(prompt))
        for _ in range(every):
            engine.step()
    while not all(request.done() for request in requests):
        engine.step()
    return [request.result() for request in requests]


def assert_single_runs(model, batch, results, sampler="threshold", **options):
    for prompt, result in zip(batch, results, strict=True):
        alone = dlmdecode.generate(model, prompt, sampler, **options)
        assert result.sequences.tolist() == alone.sequences.tolist()
        assert (result.nfe, result.new_tokens) == (alone.nfe, alone.new_tokens)


def assert_late_rows_equal_single_runs(name, cache, family):
    model, given = fond_of(micro(family), EOS, 2.0), options(name) | SIZE | {"cache": cache}
    engine = dlmdecode.Engine(model, name, batch_size=2, **given)
    batch = prompts(9, 4, 12)
    assert_single_runs(model, batch, late(engine, batch), name, **given)


@pytest.mark.parametrize("name, cache", WINDOWED + CHOSEN)
def test_rows_that_come_late_equal_their_single_runs(name, cache):
    assert_late_rows_equal_single_runs(name, cache, "llada")


@pytest.mark.parametrize("name", ["threshold", "klass", "adablock+credit+localleap"])
def test_so_it_is_where_logits_are_shifted(name):
    assert_late_rows_equal_single_runs(name, "dual", "dream")


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("family", BLOCK_CAUSAL)
def test_so_it_is_for_block_causal_models(family, cache):
    model, given = micro(family), dict(threshold=0.5, max_new_tokens=16, cache=cache)
    engine = dlmdecode.Engine(model, "threshold", batch_size=2, **given)
    batch = prompts(*LENGTHS)
    assert_single_runs(model, batch, late(engine, batch), **given)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("more", [{"cfg_scale": 0.8}, {"temperature": 0.7, "seed": 3}])
def test_so_it_is_with_guidance_and_with_noise(more, cache):
    given = dict(threshold=0.5, cache=cache, **SIZE, **more)
    engine = dlmdecode.Engine(micro("llada"), "threshold", batch_size=3, **given)
    batch = prompts(*LENGTHS)
    assert_single_runs(micro("llada"), batch, late(engine, batch), **given)


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_negative_prompts_follow_their_rows_into_other_places(cache):
    batch, negative = prompts(3, 9, 5, 7), prompts(2, 12, 4, 9, seed=1)
    given = dict(negative_prompt=negative, cfg_scale=0.8, cache=cache, **SIZE)
    whole = dlmdecode.generate(micro("llada"), batch, **given)
    out = dlmdecode.generate(micro("llada"), batch, batch_size=2, **given)
    assert torch.equal(out.sequences, whole.sequences) and out.nfe == whole.nfe


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_generate_in_places_gives_what_it_gives_all_at_once(cache):
    batch = [*prompts(*LENGTHS), prompts(3)[0]]
    given = dict(temperature=0.8, seed=1, cache=cache, **SIZE)
    whole = dlmdecode.generate(micro("llada"), batch, **given)
    steps = []
    out = dlmdecode.generate(
        micro("llada"), batch, batch_size=2, on_step=steps.append, trace=True, **given
    )
    assert torch.equal(out.sequences, whole.sequences)
    assert (out.nfe, out.new_tokens, out.texts) == (whole.nfe, whole.new_tokens, whole.texts)
    assert out.stats["forward_rows"] == whole.stats["forward_rows"]
    assert out.sequences[0].tolist() != out.sequences[5].tolist()  # equal prompts, other noise
    assert (
        [step.number for step in steps]
        == list(range(1, len(steps) + 1))
        == [step.number for step in out.trace.steps]
    )
    assert torch.equal(steps[-1].sequences, out.sequences)
    assert max(len(step.rows) for step in steps) == 2
    assert steps[0].rows.tolist() == [0, 5]  # the shortest first


def test_a_place_that_is_free_is_taken_at_the_next_step():
    batch = prompts(*[4] * 12)
    steps = list(
        dlmdecode.stream(micro("llada"), batch, "vanilla", batch_size=4, eos="ignore", **SIZE)
    )
    assert [len(step.rows) for step in steps] == [4] * 48


def test_run_yields_requests_as_they_finish():
    given = SIZE | {"eos": "ignore"}
    engine = dlmdecode.Engine(micro("llada"), "vanilla", batch_size=2, **given)
    batch = prompts(*LENGTHS)
    found = list(engine.run(batch))
    assert [request.index for request in found] == [0, 3, 1, 2, 4]  # two at a time
    results = [request.result() for request in sorted(found, key=lambda r: r.index)]
    assert_single_runs(micro("llada"), batch, results, "vanilla", **given)
    assert engine.cost.rows == sum(result.stats["forward_rows"] for result in results) == 80
    seconds = sum(result.stats["seconds"] for result in results)
    assert engine.cost.seconds == pytest.approx(seconds)


def test_texts_of_one_engine_may_differ_in_length_and_seed():
    model, given = micro("llada"), dict(threshold=0.5, temperature=1.0, **SIZE)
    engine = dlmdecode.Engine(model, "threshold", batch_size=2, **given)
    (prompt,) = prompts(6)
    wanted = [(9, 1), (24, 2), (16, 3)]
    requests = [engine.submit(prompt, max_new_tokens=n, seed=seed) for n, seed in wanted]
    for (length, seed), request in zip(wanted, requests, strict=True):
        while not request.done():
            engine.step()
        own = given | {"max_new_tokens": length, "seed": seed}
        assert_single_runs(model, [prompt], [request.result()], **own)


def test_what_cannot_be_decoded_is_refused_when_it_is_submitted():
    model, (good,) = micro("llada"), prompts(5)
    engine = dlmdecode.Engine(model, "prophet", constraints={10: 3}, batch_size=2, steps=16, **SIZE)
    request = engine.submit(good)
    with counted_forwards(model) as forwards:
        for prompt, more, message in (
            (good + 1000, {}, "prompt='row 0: id"),
            ([good, good], {}, "prompt=.*give a single one; run takes several"),
            (good, {"max_new_tokens": 0}, "max_new_tokens=0"),
            (good, {"max_new_tokens": 9}, "steps=16: .*max_new_tokens=9"),
            (good, {"seed": 1.5}, "seed=1.5"),
            (good, {"on_step": 3}, "on_step=3: give a function, or None"),
        ):
            with pytest.raises(ValueError, match=message):
                engine.submit(prompt, **more)
        with pytest.raises(ValueError, match="row 1"):
            engine.run([good, good + 1000])
    assert forwards.calls == 0
    while not request.done():
        engine.step()
    assert request.result().sequences[0, 15] == 3
    for wrong, message in ((0, "batch_size=0"), (1.5, "batch_size=1.5")):
        with pytest.raises(ValueError, match=message):
            dlmdecode.Engine(model, batch_size=wrong)
        with pytest.raises(ValueError, match=message):
            dlmdecode.generate(model, good, batch_size=wrong)


def test_a_length_that_the_sampler_is_not_built_for_is_refused():
    engine = dlmdecode.Engine(micro("llada"), "dream", max_new_tokens=16, block_length=None)
    with pytest.raises(ValueError, match="max_new_tokens=64: the sampler is built for 16"):
        engine.submit(prompts(3)[0], max_new_tokens=64)


@pytest.mark.parametrize("name", ["threshold", "klass"])
def test_bad_logits_end_their_own_request_only(name):
    batch = prompts(4, 9, 6)
    poisoned = int(batch[1][0])

    model = altered(micro("llada"), lambda logits: logits)
    encode = model.encode

    def spoilt(tokens, position, attend=None, cache=None):
        hidden = encode(tokens, position, attend, cache)
        late = (tokens != model.mask_id).sum(1) > 12  # some steps into its text
        bad = (tokens[:, 0] == poisoned) & late
        return torch.where(bad[:, None, None], torch.nan, hidden)

    model.encode = spoilt
    found = {r.index: r for r in dlmdecode.Engine(model, name, batch_size=3, **SIZE).run(batch)}
    with pytest.raises(FloatingPointError, match="step [4-9], row 1: the model's logits are NaN"):
        found[1].result()
    others = [found[0].result(), found[2].result()]
    assert_single_runs(micro("llada"), [batch[0], batch[2]], others, name, **SIZE)
    with pytest.raises(FloatingPointError, match="row 1"):
        dlmdecode.generate(model, batch, name, batch_size=2, **SIZE)


def test_an_error_of_all_is_raised_and_the_engine_goes_on():
    model, fails = altered(micro("llada"), lambda logits: logits), [True]
    encode = model.encode

    def failing(*args):
        if fails:
            raise torch.OutOfMemoryError("out of memory")
        return encode(*args)

    model.encode = failing
    engine = dlmdecode.Engine(model, "threshold", batch_size=2, **SIZE)
    first, second, third = (engine.submit(prompt) for prompt in prompts(3, 5, 4))
    with pytest.raises(torch.OutOfMemoryError):
        engine.step()
    assert isinstance(first.exception(), torch.OutOfMemoryError) and second.exception()
    fails.clear()
    while not third.done():
        engine.step()
    assert_single_runs(micro("llada"), prompts(3, 5, 4)[2:], [third.result()], **SIZE)


def test_a_cancelled_request_frees_its_place():
    engine = dlmdecode.Engine(micro("llada"), "vanilla", batch_size=1, **SIZE)
    first, second, third = (engine.submit(prompt) for prompt in prompts(5, 6, 7))
    engine.step()
    assert first.cancel() and second.cancel() and first.cancelled()
    engine.step()
    assert third.steps == 1 and first.steps == 1 and second.steps == 0
    while not third.done():
        engine.step()
    assert not third.cancel() and first.cancel()
    assert_single_runs(micro("llada"), prompts(5, 6, 7)[2:], [third.result()], "vanilla", **SIZE)
    with pytest.raises(CancelledError):
        first.result()


def test_who_stops_iterating_cancels_what_is_left():
    engine = dlmdecode.Engine(micro("llada"), "threshold", batch_size=2, **SIZE)
    found = engine.run(prompts(*LENGTHS))
    next(found)
    found.close()
    assert engine.step() == [] and not engine.flight.rows and not engine.waiting


def test_the_steps_of_a_request_are_those_of_its_single_run():
    model, batch, seen = micro("llada"), prompts(9, 4), []
    engine = dlmdecode.Engine(model, "threshold", batch_size=2, threshold=0.5, **SIZE)
    engine.submit(batch[0])
    engine.step()
    request = engine.submit(batch[1], on_step=seen.append)
    while not request.done():
        engine.step()
    alone = list(dlmdecode.stream(model, batch[1], "threshold", threshold=0.5, **SIZE))
    assert len(seen) == len(alone)
    for mine, theirs in zip(seen, alone, strict=True):
        assert mine.number == theirs.number
        for name in ("sequences", "rows", "changed", "lo", "hi", "masks_left", "nfe"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


def test_an_error_of_on_step_is_the_requests_own():
    def fails(step):
        raise KeyError("mine")

    engine = dlmdecode.Engine(micro("llada"), "threshold", batch_size=2, **SIZE)
    first, second = engine.submit(prompts(3)[0], on_step=fails), engine.submit(prompts(4)[0])
    assert engine.step() == [first] and isinstance(first.exception(), KeyError)
    while not second.done():
        engine.step()
    assert len(second.result().sequences) == 1


def test_threads_submit_while_one_serves():
    model, batch = micro("llada"), prompts(*range(3, 19))
    engine = dlmdecode.Engine(model, "threshold", batch_size=4, **SIZE)
    server = threading.Thread(target=engine.serve)
    server.start()
    requests = {}

    def client(numbers):
        for number in numbers:
            requests[number] = engine.submit(batch[number])

    clients = [threading.Thread(target=client, args=[range(k, 16, 4)]) for k in range(4)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()

    async def awaited():
        return await asyncio.wrap_future(requests[0])

    results = [asyncio.run(awaited()), *(requests[i].result(timeout=60) for i in range(1, 16))]
    assert_single_runs(model, batch, results, **SIZE)
    left = [engine.submit(prompt, max_new_tokens=64) for prompt in batch]
    engine.close()
    server.join(timeout=60)
    assert not server.is_alive()
    assert not wait(left, timeout=60).not_done and any(r.cancelled() for r in left)
    with pytest.raises(ValueError, match="the engine is closed"):
        engine.submit(batch[0])


def test_a_request_cancelled_while_an_engine_serves_ends_at_once():
    with dlmdecode.Engine(micro("llada"), "vanilla", batch_size=1, max_new_tokens=256) as engine:
        server = threading.Thread(target=engine.serve)
        server.start()
        long, short = engine.submit(prompts(4)[0]), engine.submit(prompts(5)[0], max_new_tokens=2)
        while not long.steps:
            time.sleep(0.001)
        assert long.cancel()
        assert short.result(timeout=60).nfe == [2]
    server.join(timeout=60)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_memory_does_not_grow_with_requests(cache):
    engine = dlmdecode.Engine(
        micro("llada"), "klass", batch_size=100, max_new_tokens=1, cache=cache
    )
    generator = torch.Generator().manual_seed(0)
    batch = prompts(*torch.randint(1, 40, (2000,), generator=generator).tolist())
    batch[0] = prompts(40)[0]  # the longest comes first
    held = []
    for begin in range(0, 2000, 400):
        for prompt in batch[begin : begin + 400]:
            engine.submit(prompt)
        while engine.step():
            pass
        held.append(live_tensors())
    assert len(set(held[1:])) == 1
    shapes = {kept.shape for layer in engine.flight.forward.store.layers.values() for kept in layer}
    assert [(shape[0], shape[2]) for shape in shapes] == [(100, 41)]
    assert next(engine.numbers) == 2000


def live_tensors():
    """How many tensors there are, and their bytes."""
    gc.collect()
    found = [one for one in gc.get_objects() if issubclass(type(one), Tensor)]
    return len(found), sum(one.untyped_storage().nbytes() for one in found)


@pytest.mark.parametrize("cache", [BlockCache, CommittedCache])
def test_a_store_has_as_many_places_as_were_taken_and_the_longest_canvas(cache):
    family = "sdar" if cache is CommittedCache else "llada"
    call = dlmdecode.Engine(
        micro(family), "threshold", batch_size=3, max_new_tokens=8, cache=lambda m: cache(m)
    )
    for lengths in ((5, 9), (30, 4, 6), (2,)):
        list(call.run(prompts(*lengths)))
    (k, v), *_ = call.flight.forward.store.layers.values()
    assert k.shape == v.shape and (k.shape[0], k.shape[2]) == (3, 38)


def joined():
    one = Canvas.of(prompts(5, 3), 4, 319, (EOS,))
    two = Canvas.of(prompts(9), [6], 319, (EOS,))
    one.row, two.row = torch.tensor([0, 2]), torch.tensor([1])
    one.fresh, two.fresh = Scattered(one.masked), Span(two.start, two.start + 2)
    one.memory["whole"], one.memory["row"] = torch.ones(2, 9, 3), torch.tensor([7, 8])
    two.memory["two"] = torch.ones(1, 4, dtype=torch.bool)
    for canvas in (one, two):
        for f in fields(Proposal):
            value = getattr(canvas.proposal, f.name)
            setattr(canvas.proposal, f.name, torch.rand(value.shape).to(value.dtype) + 1)
    return one, two, Canvas.join([one, two])


def test_rows_of_different_lengths_join_in_the_order_of_their_places():
    one, two, whole = joined()
    assert whole.row.tolist() == [0, 1, 2] and whole.tokens.shape == (3, 15)
    assert whole.stop.tolist() == [9, 15, 7] and whole.masked.sum(1).tolist() == [4, 6, 4]
    for index, (canvas, row) in enumerate([(one, 0), (two, 0), (one, 1)]):
        width = canvas.tokens.shape[1]
        assert torch.equal(whole.tokens[index, :width], canvas.tokens[row])
        for f in fields(Proposal):
            mine, theirs = getattr(whole.proposal, f.name), getattr(canvas.proposal, f.name)
            assert torch.equal(mine[index, :width], theirs[row])
        known = canvas.fresh.contains(canvas.position)[row]
        assert torch.equal(whole.fresh.contains(whole.position)[index, :width], known)


def test_what_only_some_rows_remember_is_zero_for_the_others():
    whole = joined()[2]
    assert whole.memory["row"].tolist() == [7, 0, 8]
    assert whole.memory["whole"].shape == (3, 15, 3)
    assert whole.memory["whole"].sum((1, 2)).tolist() == [27, 0, 27]
    assert whole.memory["two"].tolist() == [[False] * 4, [True] * 4, [False] * 4]


def test_the_canvas_is_no_longer_than_the_longest_text_that_is_left():
    one, two, whole = joined()
    left = Canvas.join([whole.take(torch.tensor([0, 2])), one.take(torch.tensor([0]))])
    assert left.tokens.shape == (3, 9) and left.memory["whole"].shape == (3, 9, 3)
    assert torch.equal(left.fresh.contains(left.position), left.masked)


def test_runs_beside_each_other_all_give_what_they_were_asked_for():
    engine = dlmdecode.Engine(micro("llada"), batch_size=4, **SIZE)
    one, other = (engine.run(prompts(5, 9, seed=seed)) for seed in (1, 2))
    pairs = list(zip(one, other, strict=True))
    assert sorted(request.index for pair in pairs for request in pair) == [0, 0, 1, 1]


def test_a_run_that_is_closed_before_it_begins_is_cancelled():
    engine = dlmdecode.Engine(micro("llada"), **SIZE)
    engine.run(prompts(5, 9)).close()
    assert engine.num_waiting() == 0


@pytest.mark.parametrize("lengths", [(33, 20), (20, 33)])
def test_a_growing_text_keeps_to_the_length_of_its_own(lengths):
    model, rule = micro("llada"), "daedal,initial=16,expand=1.0,unsure=1.0,enough=0.0,window=4"
    engine = dlmdecode.Engine(model, "threshold", batch_size=2, max_new_tokens=64, length=rule)
    batch = prompts(7, 3)
    requests = [engine.submit(ids, max_new_tokens=n) for ids, n in zip(batch, lengths, strict=True)]
    while not all(request.done() for request in requests):
        engine.step()
    for ids, n, request in zip(batch, lengths, requests, strict=True):
        alone = dlmdecode.generate(model, ids, "threshold", max_new_tokens=n, length=rule)
        assert request.result().sequences.tolist() == alone.sequences.tolist()
    with pytest.raises(ValueError, match="initial=16: the text has at most max_new_tokens=8"):
        engine.submit(batch[0], max_new_tokens=8)


def test_what_a_part_knows_of_a_row_is_no_knowledge_of_positions():
    model = micro("llada")
    given = dict(max_new_tokens=4, batch_size=2, eos="ignore")
    batch = [torch.tensor([7]), torch.tensor([8]), torch.tensor([5, 6, 9])]  # 5 positions, then 7
    out = dlmdecode.generate(model, batch, "slowfast", **given)
    for i, ids in enumerate(batch):
        alone = dlmdecode.generate(model, ids, "slowfast", max_new_tokens=4, eos="ignore")
        assert out.sequences[i, : len(ids) + 4].tolist() == alone.sequences[0].tolist()
