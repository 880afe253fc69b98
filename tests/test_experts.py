"""Mixtures of experts: what computes each token, and what a configuration may say."""

import pytest
import torch
from toy import MODELS, micro, prompts

import dlmdecode
from dlmdecode.models.experts import Experts, GroupedExperts
from dlmdecode.models.llada2_moe import LLaDA2
from dlmdecode.models.llada_moe import LLaDAMoE
from dlmdecode.models.qwen import QwenMLP


def mixture(normalised: bool = False) -> Experts:
    torch.manual_seed(0)
    return Experts(16, 8, num_experts=6, per_token=2, normalised=normalised)


def plainly(experts: Experts, token: torch.Tensor) -> torch.Tensor:
    probability = experts.gate(token).softmax(-1)
    weight, chosen = probability.topk(2)
    weight = weight / weight.sum() if experts.normalised else weight
    return sum(w * experts.experts[e](token) for w, e in zip(weight, chosen.tolist(), strict=True))


@pytest.mark.parametrize("normalised", [False, True])
@torch.inference_mode()
def test_each_token_is_the_weighted_sum_of_its_experts(normalised):
    experts, x = mixture(normalised), torch.randn(3, 7, 16)
    expected = torch.stack([plainly(experts, token) for token in x.flatten(0, 1)])
    torch.testing.assert_close(experts(x), expected.view(3, 7, 16))


@torch.inference_mode()
def test_experts_that_nobody_asks_for_and_a_single_token_change_nothing():
    experts, x = mixture(), torch.randn(1, 1, 16)
    torch.testing.assert_close(experts(x)[0, 0], plainly(experts, x[0, 0]))
    assert experts(x[:, :0]).shape == (1, 0, 16)


@torch.inference_mode()
def test_weights_sum_to_one_only_where_they_are_normalised():
    x = torch.randn(5, 16)
    assert (mixture().route(x)[0].sum(-1) < 1).all()
    torch.testing.assert_close(mixture(normalised=True).route(x)[0].sum(-1), torch.ones(5))


def test_the_router_decides_in_float32_whatever_the_dtype():
    experts = mixture().bfloat16()
    weight, _ = experts.route(torch.randn(5, 16).bfloat16())
    assert weight.dtype == torch.float32
    assert experts(torch.randn(5, 16).bfloat16()).dtype == torch.bfloat16


def test_layers_without_experts_have_a_gated_mlp():
    model = LLaDAMoE(dict(micro("llada-moe").config) | {"moe_layer_freq": [0, 1, 1]})
    kinds = [type(block.mlp) for block in model.blocks]
    assert kinds == [QwenMLP, Experts, Experts]
    assert model.blocks[0].mlp.up_proj.out_features == 160


def test_a_list_of_layers_that_is_absent_means_experts_everywhere():
    model = LLaDAMoE(dict(micro("llada-moe").config) | {"moe_layer_freq": None})
    assert all(isinstance(block.mlp, Experts) for block in model.blocks)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"moe_layer_freq": [1]}, r"moe_layer_freq=\[1\]: it must list 0 or 1 for each of 3"),
        ({"moe_layer_freq": 1}, "moe_layer_freq=1: it must list"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok=9: .*1 to 8"),
        ({"moe_router_score_function": "sigmoid"}, "moe_router_score_function='sigmoid'"),
        ({"shared_expert_intermediate_size": 32}, "shared_expert_intermediate_size=32"),
        ({"router_num_group": 2}, "router_num_group=2"),
    ],
)
def test_a_router_that_is_not_implemented_is_refused_by_its_field(setting, message):
    with pytest.raises(ValueError, match=message):
        LLaDAMoE(dict(micro("llada-moe").config) | setting)


def grouped(**more: int | float) -> GroupedExperts:
    torch.manual_seed(0)
    how = {"groups": 3, "chosen_groups": 2, "scale": 2.5, "shared": 1} | more
    experts = GroupedExperts(16, 8, num_experts=6, per_token=2, **how)
    torch.nn.init.normal_(experts.gate.expert_bias)
    return experts


@torch.inference_mode()
def test_experts_come_from_the_groups_with_the_best_pairs_and_are_weighted_without_the_bias():
    experts, (x,) = grouped(), torch.randn(1, 16)
    score = (experts.gate.weight @ x).sigmoid()
    biased = (score + experts.gate.expert_bias).tolist()
    pairs = sorted(((biased[g] + biased[g + 1], g) for g in (0, 2, 4)), reverse=True)[:2]
    left = sorted((biased[e], e) for _, g in pairs for e in (g, g + 1))
    best = [e for _, e in left[:-3:-1]]
    weight, chosen = experts.route(x[None])
    assert chosen[0].tolist() == best
    torch.testing.assert_close(weight[0], 2.5 * score[best] / score[best].sum())
    mixed = sum(w * experts.experts[e](x) for w, e in zip(weight[0], best, strict=True))
    torch.testing.assert_close(experts(x[None])[0], mixed + experts.shared_experts(x))


@torch.inference_mode()
def test_a_single_expert_keeps_its_own_weight_and_none_need_be_shared():
    torch.manual_seed(0)
    experts = GroupedExperts(16, 8, 4, 1, groups=2, chosen_groups=1, scale=1.0, shared=0)
    x = torch.randn(3, 16)
    weight, chosen = experts.route(x)
    torch.testing.assert_close(weight, experts.gate(x).sigmoid().gather(1, chosen))
    assert experts.shared_experts is None and experts(x).shape == (3, 16)


def test_the_bias_of_a_router_stays_in_float32(tmp_path):
    model = dlmdecode.load(MODELS / "llada2-moe-micro", device="cpu", dtype="bfloat16")
    gate = model.blocks[1].mlp.gate
    assert (gate.expert_bias.dtype, gate.weight.dtype) == (torch.float32, torch.bfloat16)
    assert model.dtype == torch.bfloat16
    out = dlmdecode.generate(model, prompts(5, 9), max_new_tokens=8)
    assert out.nfe[0] > 0


def test_the_first_layers_of_llada2_are_dense_as_many_as_the_configuration_says():
    config = dict(micro("llada2-moe").config)
    for dense in (0, 2, None):
        blocks = LLaDA2(config | {"first_k_dense_replace": dense}).blocks
        kinds = [isinstance(block.mlp, QwenMLP) for block in blocks]
        assert kinds == [i < (dense or 0) for i in range(3)]
    plain = LLaDA2(config | {"use_qk_norm": False, "use_qkv_bias": True, "num_shared_experts": 0})
    names = plain.state_dict()
    assert "model.layers.1.attention.query_key_value.bias" in names
    assert not any("layernorm" in name and "query" in name for name in names)
    assert not any("shared" in name for name in names)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"n_group": 3}, "n_group=3: it must divide 16 experts"),
        ({"topk_group": 5}, "topk_group=5: .*1 to 4"),
        ({"topk_group": 1, "num_experts_per_tok": 5}, "num_experts_per_tok=5: .*1 to 4"),
        ({"first_k_dense_replace": -1}, "first_k_dense_replace=-1: .*0 to"),
        ({"score_function": "softmax"}, "score_function='softmax'"),
        ({"norm_topk_prob": False}, "norm_topk_prob=False"),
        ({"rotary_dim": 8}, "partial_rotary_factor gives 12 and rotary_dim gives 8 of 24"),
        ({"partial_rotary_factor": 0.05, "rotary_dim": None}, "1 numbers of 24"),
    ],
)
def test_a_mixture_of_llada2_that_is_not_implemented_is_refused_by_its_field(setting, message):
    with pytest.raises(ValueError, match=message):
        LLaDA2(dict(micro("llada2-moe").config) | setting)


def test_where_the_share_that_is_rotated_stands_does_not_matter():
    config = dict(micro("llada2-moe").config) | {"partial_rotary_factor": None, "rotary_dim": None}
    rope = {"rope_theta": 600000, "rope_type": "default", "partial_rotary_factor": 0.5}
    assert LLaDA2(config | {"rope_parameters": rope}).rotary_dim == 12
    assert LLaDA2(config).rotary_dim == 24
