"""Prompts in every form users have them, and every prompt that is refused before any forward."""

import copy
from collections import UserDict

import numpy as np
import pytest
import torch
from toy import MASK, counted_forwards, micro, talking
from transformers import BatchFeature

import dlmdecode

QUICK = dict(max_new_tokens=8, block_length=8, steps=2, sampler="vanilla")
IDS = [7, 8, 9]
CHAT = [{"role": "user", "content": "w7 w8 w9"}]
CHAT_IDS = [316, 7, 8, 9, 317]
BATCH = torch.tensor([[7, 8, 9], [5, 6, 0]])
BATCH_MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


def encoded(prompt, model=None, **options):
    """The prompts that `generate` wrote onto its canvas."""
    out = dlmdecode.generate(model or talking(), prompt, **QUICK, **options)
    rows = zip(out.sequences.tolist(), out.prompt_lengths, strict=True)
    return [row[:length] for row, length in rows]


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("w7 w8 w9", [IDS]),
        (["w7 w8 w9", "w5"], [IDS, [5]]),
        (("w7 w8 w9", "w5"), [IDS, [5]]),
        (CHAT, [CHAT_IDS]),
        ([CHAT, CHAT], [CHAT_IDS, CHAT_IDS]),
        ([{"role": "user", "content": [{"type": "text", "text": "w7 w8 w9"}]}], [CHAT_IDS]),
        ([{"role": "user", "content": ["w7", {"text": "w8 w9"}]}], [CHAT_IDS]),
        (np.array(IDS), [IDS]),
        (np.array(IDS, dtype=np.uint16), [IDS]),
        (np.array(IDS, dtype=">i4"), [IDS]),
        (np.array([IDS]), [IDS]),
        ([np.int64(7), np.int32(8), torch.tensor(9)], [IDS]),
        ([np.array(IDS), torch.tensor([5])], [IDS, [5]]),
        (np.array(["w7 w8 w9", "w5"]), [IDS, [5]]),
        (BatchFeature({"input_ids": np.array([IDS])}), [IDS]),
        ({"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor([0, 1, 1])}, [[8, 9]]),
        ({"input_ids": np.array(IDS), "attention_mask": [False, True, True]}, [[8, 9]]),
        (torch.tensor(IDS), [IDS]),
        (torch.tensor(IDS, dtype=torch.int32), [IDS]),
        (torch.tensor([IDS]), [IDS]),
        ([torch.tensor(IDS), torch.tensor([5])], [IDS, [5]]),
        (IDS, [IDS]),
        ([IDS, [5]], [IDS, [5]]),
        ({"input_ids": torch.tensor([IDS])}, [IDS]),
        ({"input_ids": BATCH, "attention_mask": BATCH_MASK}, [IDS, [5, 6]]),
        ({"input_ids": IDS}, [IDS]),
        (UserDict(input_ids=BATCH, attention_mask=BATCH_MASK), [IDS, [5, 6]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_form_of_prompt_becomes_its_ids(prompt, expected):
    assert encoded(prompt) == expected


def test_what_a_tokenizer_returns_is_a_prompt():
    tokenizer = talking().tokenizer
    assert encoded(tokenizer("w7 w8 w9")) == [IDS]
    assert encoded(tokenizer("w7 w8 w9", return_tensors="pt")) == [IDS]
    assert encoded(tokenizer(["w7 w8 w9", "w5 w6"], return_tensors="pt", padding=True)) == [
        IDS,
        [5, 6],
    ]
    assert encoded(tokenizer(["w7 w8 w9", "w5 w6"])) == [IDS, [5, 6]]
    assert encoded(tokenizer(["w7 w8 w9", "w5 w6"], padding=True)) == [IDS, [5, 6]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_read_through_its_mask_whatever_the_padding_side(side):
    padded = torch.tensor([[318, 5, 6], [7, 8, 9]])
    attention_mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    if side == "right":
        padded, attention_mask = padded.roll(-1, 1), attention_mask.roll(-1, 1)
        padded[1] = torch.tensor(IDS)
    assert encoded(padded, attention_mask=attention_mask) == [[5, 6], IDS]


MASKS = {
    "lists": BATCH_MASK.tolist(),
    "truth values": BATCH_MASK.bool(),
    "lists of truth values": BATCH_MASK.bool().tolist(),
    "an array": BATCH_MASK.numpy(),
    "an array of truth values": BATCH_MASK.bool().numpy(),
    "floats": BATCH_MASK.float(),
    "rows of different kinds": [np.array([1, 1, 1]), torch.tensor([True, True, False])],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("form", [lambda ids: ids, torch.Tensor.tolist, torch.Tensor.numpy, list])
def test_a_mask_of_any_form_goes_with_ids_of_any_form(form, mask):
    assert encoded(form(BATCH), attention_mask=mask) == [IDS, [5, 6]]


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("w7 <|mdm_mask|> w8", [7, 315, 8]),
        ([{"role": "user", "content": "w7 <|mdm_mask|> w8"}], [316, 7, 315, 8, 317]),
        ([{"role": "user", "content": "w7<|endoftext|> w8"}], [316, 7, 315, 8, 317]),
        ([{"role": "user", "content": "\ue000 w8"}], [316, 315, 8, 317]),
    ],
)
def test_a_control_token_that_a_user_spells_out_is_text(prompt, expected):
    assert encoded(prompt) == [expected]


def test_text_may_come_from_a_chat_template():
    assert encoded("<user> w7 <|endoftext|> <assistant>") == [[316, 7, 318, 317]]


def test_a_role_that_only_the_template_has_is_known():
    tokenizer = talking().tokenizer
    template = tokenizer.chat_template
    tokenizer.chat_template = "{% if messages[0]['role'] == 'critic' %}w1{% endif %}"
    try:
        assert encoded([{"role": "critic", "content": "w7"}]) == [[1]]
    finally:
        tokenizer.chat_template = template


def test_what_a_template_refuses_is_told():
    tokenizer = talking().tokenizer
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    try:
        with pytest.raises(ValueError, match="prompt: the chat template.*roles must alternate"):
            encoded(CHAT)
    finally:
        tokenizer.chat_template = template


def test_padding_is_never_guessed_from_the_ids():
    eos_in_prompt = torch.tensor([[7, 318, 318]])
    assert encoded(eos_in_prompt) == [[7, 318, 318]]


BAD = {
    "empty list": ([], {}, "non-empty list"),
    "nothing": (None, {}, "prompt=None"),
    "a number": (3, {}, "prompt=3"),
    "a batch without mask": (BATCH, {}, "attention_mask="),
    "a mask of another shape": (BATCH, {"attention_mask": BATCH_MASK[:, :2]}, r"\(2, 2\)"),
    "a mask with an empty row": (BATCH, {"attention_mask": [[1, 1, 1], []]}, r"\(2, 3\)"),
    "a mask of no row": (IDS, {"attention_mask": []}, r"attention_mask=\(1, 0\)"),
    "a mask with a hole": (
        BATCH,
        {"attention_mask": torch.tensor([[1, 0, 1], [1, 1, 0]])},
        "one run of ones",
    ),
    "a mask of nothing": (
        BATCH,
        {"attention_mask": torch.tensor([[1, 1, 1], [0, 0, 0]])},
        "row 1.*empty",
    ),
    "a mask beside text": ("w1", {"attention_mask": BATCH_MASK}, r"token ids \(B, P\) only"),
    "a mask of other numbers": (IDS, {"attention_mask": [1, 2, 1]}, "ones and zeros"),
    "a mask that is none": (IDS, {"attention_mask": 3}, "attention_mask=.*shape of prompt"),
    "two masks": (
        {"input_ids": BATCH, "attention_mask": BATCH_MASK},
        {"attention_mask": BATCH_MASK},
        "brings its own",
    ),
    "an image": ({"input_ids": [IDS], "pixel_values": [1.0]}, {}, "pixel_values.*leave it out"),
    "bytes": (b"w1", {}, "bytes: decode them"),
    "bytes in a list": ([b"w1"], {}, "bytes: decode them"),
    "half a character": ("w1 \ud800", {}, "prompt=.*the character at 3"),
    "half a character in a message": (
        [{"role": "user", "content": "\udfff"}],
        {},
        "prompt=.*the character at 0",
    ),
    "a misspelt role": ([{"role": "usr", "content": "w1"}], {}, "role='usr'.*mean 'user'"),
    "no role": ([{"content": "w1"}], {}, "message 0: role=None"),
    "a message without content": ([CHAT[0], {"role": "user"}], {}, "message 1: content=None"),
    "a message of an image": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        {},
        "content part=.*text is all",
    ),
    "a message alone": (CHAT[0], {}, "chat messages are a list"),
    "ids and text": ([7, "w1"], {}, "integer token ids"),
    "an array of floats": (np.array([1.0]), {}, "prompt=1.0"),
    "truth values in a list": ([True, 7], {}, "integer token ids"),
    "an id of more than 64 bits": ([2**70], {}, "64 bits"),
    "three dimensions": (torch.zeros(1, 2, 3, dtype=torch.int64), {}, r"\(1, 2, 3\)"),
    "a 2-D tensor in a list": ([torch.tensor([IDS])], {}, "1-D"),
    "floats": (torch.tensor([1.0, 2.0]), {}, "integer token ids"),
    "truth values": (torch.tensor([True, False]), {}, "integer token ids"),
    "a negative id": (torch.tensor([1, -1]), {}, "id -1': ids are 0 to 319"),
    "an id beyond the vocabulary": (torch.tensor([1, 320]), {}, "id 320"),
    "a mask token": (torch.tensor([1, MASK, 2]), {}, r"mask token 319 at \[1\].*remove it"),
    "a mapping without ids": ({"text": "w1"}, {}, "input_ids"),
    "a list of mixed nonsense": (["w1", 3.5], {}, "3.5"),
}


@pytest.mark.parametrize("prompt, options, message", BAD.values(), ids=BAD)
def test_a_bad_prompt_is_refused_before_any_forward(prompt, options, message):
    with counted_forwards(talking()) as count:
        with pytest.raises(ValueError, match=message):
            dlmdecode.generate(talking(), prompt, **QUICK, **options)
        with pytest.raises(ValueError, match=message):
            dlmdecode.stream(talking(), prompt, **QUICK, **options)
    assert count.calls == 0


@pytest.mark.parametrize("empty", ["", " ", torch.tensor([], dtype=torch.int64), [[]]])
def test_an_empty_prompt_is_nothing_where_there_is_no_bos(empty):
    assert encoded(empty) == [[]]
    assert encoded(["w1", ""]) == [[1], []]


def test_an_empty_prompt_is_the_bos_of_the_tokenizer():
    model = copy.copy(talking())
    model.tokenizer = copy.copy(model.tokenizer)
    model.tokenizer.bos_token = "<unused313>"
    assert encoded("", model) == [[313]]


def test_an_empty_prompt_is_refused_where_logits_are_shifted_and_no_token_can_stand_before_them():
    with pytest.raises(ValueError, match="needs a token before the text"):
        dlmdecode.generate(micro("dream"), torch.tensor([], dtype=torch.int64), **QUICK)


@pytest.mark.parametrize("prompt", ["w1", CHAT])
def test_text_for_a_model_without_tokenizer_is_refused(prompt):
    with pytest.raises(ValueError, match="no tokenizer: give ids"):
        dlmdecode.generate(micro("llada"), prompt)


def test_messages_for_a_tokenizer_without_chat_template_are_refused():
    tokenizer = talking().tokenizer
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(ValueError, match="no chat template: give text"):
            dlmdecode.generate(talking(), CHAT)
    finally:
        tokenizer.chat_template = template


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_ids_are_ids(dtype):
    wanted = dlmdecode.generate(micro("llada"), torch.tensor([5, 6, 7]), max_new_tokens=8)
    out = dlmdecode.generate(micro("llada"), torch.tensor([5, 6, 7], dtype=dtype), max_new_tokens=8)
    assert torch.equal(out.sequences, wanted.sequences)


def test_a_negative_prompt_is_named_as_such():
    with pytest.raises(ValueError, match="^negative_prompt=5"):
        dlmdecode.generate(
            micro("llada"), torch.tensor([5]), cfg_scale=1.0, negative_prompt=5, max_new_tokens=8
        )
