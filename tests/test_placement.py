"""A model over several devices: the plan, and forwards whose parts are on two of them.

There is one device here. A second is pretended: tensors that say they are elsewhere, compute on the
CPU, and refuse to meet the first device's.
"""

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from toy import MODELS, micro, prompts

import dlmdecode
from dlmdecode.commands.cli import main
from dlmdecode.models import placement
from dlmdecode.models.loading import load
from dlmdecode.models.placement import attach, parts_of, places_of, spread
from dlmdecode.models.quantize import plan_quantization

needs_accelerate = pytest.mark.skipif(
    not placement.accelerate_is_there(),
    reason="needs accelerate: pip install 'dlmdecode[placement]'",
)
AWAY = torch.device("cpu:1")  # no torch puts a tensor there, and none has to be started


class Away(torch.Tensor):
    """A tensor that says it is on `AWAY`."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=AWAY
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return across(func, args, kwargs or {})


def across(func, args, kwargs):
    """`func` where its tensors are; `_to_copy` alone has them on two devices."""
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    away = [isinstance(one, Away) for one in tensors if one.dim() > 0 or isinstance(one, Away)]
    target = kwargs.get("device")
    assert all(away) or not any(away), f"{func} has tensors on two devices"
    there = target == AWAY if target is not None else any(away)
    kwargs = kwargs | ({"device": torch.device("cpu")} if target is not None else {})
    args, kwargs = tree_map_only(Away, lambda one: one.inner, (args, kwargs))
    out = func(*args, **kwargs)
    return tree_map_only(torch.Tensor, Away, out) if there else out


class TwoDevices(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return across(func, args, kwargs or {})


def on_meta(model):
    with torch.device("meta"):
        return type(model)(model.config)


def dtypes(model):
    return dict.fromkeys(model.state_dict(), torch.float32)


def split(family, first_away):
    """A fresh micro model whose blocks from `first_away` on, norm and head are elsewhere."""
    model = load(MODELS / f"{family}-micro", device="cpu")
    parts = list(parts_of(model))
    at = [i for i, part in enumerate(parts) if parts_of(model)[part] in set(model.blocks)]
    places = {part: AWAY if i >= at[first_away] else torch.device("cpu")
              for i, part in enumerate(parts)}  # fmt: skip
    for part, place in places.items():
        for module in parts_of(model)[part].modules() if place == AWAY else ():
            for name, value in list(module.named_parameters(recurse=False)):
                module._parameters[name] = torch.nn.Parameter(Away(value.data), requires_grad=False)
    model.device_map = places
    attach(model)
    return model


def test_parts_are_the_embedding_whole_blocks_the_norm_and_the_head():
    model = micro("llada")
    names = [name.removeprefix("model.transformer.") for name in parts_of(model)]
    blocks = [f"blocks.{i}" for i in range(model.num_layers)]
    assert sorted(names) == sorted(["wte", *blocks, "ln_f", "ff_out"])


@needs_accelerate
@pytest.mark.parametrize("name", ["tiny", "tiny-dream"])
def test_auto_fills_two_cards_that_neither_could_hold_alone(name):
    model = on_meta(load(name, device="cpu"))
    total = sum(4 * value.numel() for value in model.parameters())
    room = int(0.8 * total)
    places = places_of(model, spread(model, dtypes(model), None, {0: room, 1: room}))
    assert set(places) == set(parts_of(model))
    assert set(places.values()) == {torch.device("cuda:0"), torch.device("cuda:1")}
    for device in set(places.values()):
        held = [parts_of(model)[part] for part, place in places.items() if place == device]
        assert sum(4 * v.numel() for part in held for v in part.parameters()) <= room


@needs_accelerate
def test_auto_counts_packed_weights_as_packed():
    model = on_meta(load("tiny-dream", device="cpu"))
    room = {0: 10 * 2**20}
    with pytest.raises(ValueError, match="device_map='auto': .* does not fit .* on GPU 0"):
        spread(model, dtypes(model), None, room)
    assert set(spread(model, dtypes(model), plan_quantization("int8", model), room).values()) == {0}


@needs_accelerate
def test_nothing_goes_to_the_cpu_beside_a_gpu():
    model = on_meta(load("tiny", device="cpu"))
    with pytest.raises(ValueError, match="does not fit .*: give more GPUs or memory, .*quantize="):
        spread(model, dtypes(model), None, {0: "2MiB", "cpu": "8GiB"})
    block = "model.transformer.blocks.1"
    with pytest.raises(ValueError, match="part of the model would be on the CPU"):
        places_of(model, {"": 0, block: "cpu"})


WRONG = [
    ({"modle": "cpu"}, "no module has the name 'modle'; did you mean 'model'"),
    ({"model.transformer.wte": "cpu"}, "it has no device for model.transformer."),
    ({"": "disk"}, r"device_map\[''\]='disk': .*there is no offloading"),
    ({"": True}, r"device_map\[''\]=True"),
    ({"": "meta"}, "device='meta' holds shapes and no values"),
    ({"": 99}, "device='cuda:99' is not there"),
    ({"": "cpu", "model.transformer.blocks.0.q_proj": 0}, "blocks.0 has to be on one device"),
    ({}, "give 'auto', or a dict"),
    ("balanced", "give 'auto', or a dict"),
    (0, "give 'auto', or a dict"),
]


@needs_accelerate
@pytest.mark.parametrize("device_map, message", WRONG)
def test_a_map_that_says_nothing_useful_is_refused(device_map, message):
    with pytest.raises(ValueError, match=message):
        load("tiny", device_map=device_map)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"device": "cpu", "device_map": "auto"}, "device='cpu': device_map says"),
        ({"max_memory": {0: 1}}, "it goes with device_map='auto' only"),
        ({"device_map": {"": "cpu"}, "max_memory": {0: 1}}, "needs no limits"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load("tiny", **options)


def test_without_accelerate_the_extra_is_named_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match=r"device_map='auto': .*\"dlmdecode\[placement\]\""):
        load(tmp_path / "nothing", device_map="auto")


def test_a_command_takes_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert main(["generate", "2 + 3", "--device-map", "auto"]) == 2
    assert "device_map='auto': it needs accelerate" in capsys.readouterr().err


@needs_accelerate
@pytest.mark.skipif(torch.cuda.is_available(), reason="what it says is of a computer without GPUs")
@torch.inference_mode()
def test_without_a_gpu_auto_is_the_cpu_and_one_device_needs_no_hooks():
    tokens = torch.stack(prompts(9))
    for device_map in ("auto", {"": "cpu"}, {"model": torch.device("cpu", 0)}):
        model = load(MODELS / "llada-micro", device_map=device_map)
        assert set(model.device_map.values()) == {torch.device("cpu")}
        assert not any(hasattr(part, "_hf_hook") for part in parts_of(model).values())
        assert torch.equal(model(tokens), micro("llada")(tokens))


@needs_accelerate
@pytest.mark.parametrize("family", ["llada", "dream", "sdar", "illada"])
@pytest.mark.parametrize("first_away", [0, 1])
@torch.inference_mode()
def test_logits_are_the_same_over_two_devices(family, first_away):
    tokens = torch.stack(prompts(9, 9))
    model = split(family, first_away)
    with TwoDevices():
        logits = model(tokens)
    assert logits.device == model.device == torch.device("cpu")
    assert torch.equal(logits, micro(family)(tokens))


@needs_accelerate
@pytest.mark.parametrize(
    "family, cache", [("llada", "none"), ("llada", "dual"), ("dream", "prefix"), ("sdar", "block")]
)
def test_texts_are_the_same_over_two_devices_under_every_cache(family, cache):
    model, some = split(family, 1), prompts(5, 9)
    settings = dict(max_new_tokens=16, block_length=8, cache=cache)
    with TwoDevices():
        out = dlmdecode.generate(model, some, "threshold", **settings)
    alone = dlmdecode.generate(micro(family), some, "threshold", **settings)
    assert torch.equal(out.sequences, alone.sequences) and out.nfe == alone.nfe
