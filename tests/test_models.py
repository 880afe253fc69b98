"""The native architectures against recorded outputs of the published model code."""

import pytest
import torch
from safetensors.torch import load_file
from toy import FAMILIES, FULL_ATTENTION, MASK, MODELS, VOCAB, micro, prompts

from dlmdecode.models.config import Config
from dlmdecode.models.illada import ILLaDA
from dlmdecode.models.llada import LLaDA

TOLERANCE = 1e-4


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def recorded(family: str) -> dict[str, torch.Tensor]:
    return load_file(MODELS / f"{family}-micro" / "forward.safetensors")


@pytest.mark.parametrize("family", FULL_ATTENTION)
@pytest.mark.parametrize("case", range(4))
@torch.inference_mode()
def test_logits_are_those_of_the_published_code(family, case):
    values = recorded(family)
    logits = micro(family)(values[f"input_ids.{case}"])
    assert logits.dtype == torch.float32
    for name in ("logits", "logits64"):
        expected = values[f"{name}.{case}"].float()
        torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kept", ["prefix", "dual"])
@torch.inference_mode()
def test_a_cached_step_through_the_key_value_hook_gives_the_recorded_logits(family, kept):
    values, model = recorded(family), micro(family)
    full, changed = values["cache.full_input_ids"], values["cache.changed_input_ids"]
    first, last = values["cache.block_start_end"].tolist()
    last = last if kept == "dual" else full.shape[1]
    store = {}

    def keep(layer, k, v):
        store[layer] = k, v
        return k, v

    def mix(layer, k, v):
        old_k, old_v = (old.clone() for old in store[layer])
        old_k[:, :, first:last], old_v[:, :, first:last] = k, v
        return old_k, old_v

    position = torch.arange(full.shape[1])[None]
    model.encode(full, position, cache=keep)
    hidden = model.encode(changed[:, first:last], position[:, first:last], cache=mix)
    expected = values[f"cache.{kept}_logits"]
    torch.testing.assert_close(model.head(hidden), expected, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_padding_hidden_by_the_attention_mask_changes_nothing(family):
    model, (ids,) = micro(family), prompts(12)
    padded = torch.cat([ids, torch.full((5,), MASK)])[None]
    attention_mask = (torch.arange(17) < 12).long()[None]
    alone = model(ids[None])
    torch.testing.assert_close(model(padded, attention_mask)[:, :12], alone, atol=TOLERANCE, rtol=0)
    assert not torch.allclose(model(padded)[:, :12], alone, atol=1e-2)


@torch.inference_mode()
def test_the_head_of_gathered_hidden_states_equals_gathered_logits(family):
    model, (ids,) = micro(family), prompts(20)
    at = torch.tensor([3, 7, 19])
    hidden = model.encode(ids[None], torch.arange(20)[None])[:, at]
    torch.testing.assert_close(model.head(hidden), model(ids[None])[:, at], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_key_value_heads_are_shared_by_groups_of_query_heads():
    model = micro("dream")
    shapes = []
    model.encode(
        torch.zeros(2, 9, dtype=torch.int64),
        torch.arange(9).expand(2, 9),
        cache=lambda layer, k, v: shapes.append(tuple(k.shape)) or (k, v),
    )
    assert shapes == [(2, 2, 9, 16)] * 3


def test_only_dream_shifts_its_logits():
    assert micro("llada").shift == 0
    assert micro("dream").shift == 1


def test_illada_refuses_a_layer_norm():
    config = dict(micro("illada").config) | {"layer_norm_eps": 1e-5}
    with pytest.raises(ValueError, match="layer_norm_eps=1e-05: .*implemented without it"):
        ILLaDA(config)


def test_models_know_their_size_and_context():
    assert [micro(family).vocab_size for family in FAMILIES] == [VOCAB, VOCAB]
    assert [micro(family).max_length for family in FAMILIES] == [512, 2048]


@pytest.mark.parametrize(
    "setting", [{"block_type": "sequential"}, {"alibi": True}, {"block_group_size": 4}]
)
def test_an_architecture_variant_that_is_not_implemented_is_refused(setting):
    config = dict(micro("llada").config) | setting
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*implemented for"):
        LLaDA(config)


def test_a_setting_that_is_absent_counts_as_the_implemented_one():
    Config().refuse_unsupported({"rope": (True,)})


@torch.inference_mode()
def test_tied_weights_need_no_head_of_their_own():
    config = dict(micro("llada").config) | {"weight_tying": True}
    model = LLaDA(config)
    assert not any("ff_out" in name and "blocks" not in name for name in model.state_dict())
    assert model(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, VOCAB)
